//! The files a list of hosts is made of, as somebody else reads them.

use std::io;
use std::path::{Path, PathBuf};

use globset::Glob;

/// Largest number of files one pattern may name.
const MOST: usize = 10_000;

/// How files are read: the only thing about the world that lists ask.
pub struct Files<'a> {
    /// The directory of `matrix.toml`.
    pub base: PathBuf,
    /// What `~` stands for.
    pub home: Option<PathBuf>,
    /// The text of a file.
    pub read: &'a dyn Fn(&Path) -> io::Result<String>,
    /// The names in a directory.
    pub list: &'a dyn Fn(&Path) -> io::Result<Vec<String>>,
}

impl Files<'_> {
    /// Where a path of the matrix leads.
    pub(super) fn path(&self, text: &str) -> PathBuf {
        match (text.strip_prefix("~/"), &self.home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => self.base.join(text),
        }
    }

    /// A path as errors show it.
    pub(super) fn shown(&self, path: &Path) -> String {
        path.strip_prefix(".").unwrap_or(path).display().to_string()
    }

    /// Every file a path or a pattern names, sorted; a file that is named without a pattern need not exist yet.
    pub(super) fn matching(&self, text: &str) -> Result<Vec<PathBuf>, String> {
        let path = self.path(text);
        let is_pattern = |text: &str| text.contains(['*', '?', '[', '{']);
        if !is_pattern(text) {
            return Ok(vec![path]);
        }
        let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Err(format!("`{text}` names no files"));
        };
        if text.rsplit_once('/').is_some_and(|(dir, _)| is_pattern(dir)) {
            return Err(format!("`{text}`: only what follows the last `/` can be a pattern"));
        }
        let glob =
            Glob::new(name).map_err(|error| format!("`{text}` is not a glob: {}", error.kind()))?.compile_matcher();
        let names = (self.list)(dir).map_err(|error| format!("{}: {error}", self.shown(dir)))?;
        // Editors hide what they have not finished.
        let mut names: Vec<_> =
            names.into_iter().filter(|name| !name.starts_with('.') && glob.is_match(name)).collect();
        names.sort();
        match names.len() {
            0 => Err(format!("`{text}` matches no file")),
            1..=MOST => Ok(names.into_iter().map(|name| dir.join(name)).collect()),
            n => Err(format!("`{text}` matches {n} files, at most {MOST} are read")),
        }
    }
}
