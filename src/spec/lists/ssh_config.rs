//! An ssh configuration → the hosts it names. Only `Host` and `Include` are read: what they mean is for `ssh` to say, which
//! is given the name. ssh_config(5).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Files, Found};

/// As deep as ssh itself goes.
const DEPTH: u32 = 16;

/// Every host with a name of its own: what is only a pattern names nobody.
pub(super) fn hosts(path: &str, files: &Files<'_>) -> Result<Vec<Found>, String> {
    let file = files.path(path);
    let own = files.home.as_ref().is_some_and(|home| file == home.join(".ssh/config"));
    let config = match path.starts_with("~/") {
        true => file.display().to_string(),
        false => path.to_owned(),
    };
    let mut reading = Reading { files, seen: BTreeSet::new(), found: vec![], config: (!own).then_some(config) };
    reading.file(&file, 0)?;
    Ok(reading.found)
}

struct Reading<'a> {
    files: &'a Files<'a>,
    seen: BTreeSet<String>,
    found: Vec<Found>,
    /// What `ssh` has to be told of, where it would not look by itself.
    config: Option<String>,
}

impl Reading<'_> {
    fn file(&mut self, path: &Path, depth: u32) -> Result<(), String> {
        let name = self.files.shown(path);
        let text = (self.files.read)(path).map_err(|error| format!("{name}: {error}"))?;
        for (line, number) in text.lines().zip(1..) {
            let words = words(line);
            let Some((key, values)) = words.split_first() else { continue };
            match key.to_ascii_lowercase().as_str() {
                "host" => values.iter().for_each(|alias| self.host(alias, &name, number)),
                "include" => {
                    if depth >= DEPTH {
                        return Err(format!("{name}:{number}: `Include` goes deeper than {DEPTH} files"));
                    }
                    for value in values {
                        // Relative ones are the user's, wherever the file is.
                        let absolute = value.starts_with('/') || value.starts_with("~/");
                        let value = if absolute { value.clone() } else { format!("~/.ssh/{value}") };
                        // What is not there is left out by ssh, too.
                        for included in self.files.matching(&value).unwrap_or_default() {
                            if (self.files.read)(&included).is_ok() {
                                self.file(&included, depth + 1)?;
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn host(&mut self, alias: &str, file: &str, line: usize) {
        if alias.contains(['*', '?', '!']) || !self.seen.insert(alias.to_owned()) {
            return;
        }
        self.found.push(Found {
            name: alias.to_owned(),
            ssh: Some(alias.to_owned()),
            ssh_config: self.config.clone(),
            labels: BTreeMap::new(),
            file: file.to_owned(),
            line,
        });
    }
}

/// `Host a "b c"`, `Host=a`; nothing of a comment.
fn words(line: &str) -> Vec<String> {
    let line = line.trim();
    if line.starts_with('#') {
        return vec![];
    }
    let key = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
    let (key, rest) = line.split_at(key);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    let values = super::ansible::words(rest);
    std::iter::once(key.to_owned()).filter(|key| !key.is_empty()).chain(values).collect()
}
