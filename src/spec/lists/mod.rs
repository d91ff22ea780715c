//! Lists of hosts → the same matrix with every host in it: `include` of files of `[[host]]` tables, and `[[hosts]]` from an
//! Ansible inventory or an ssh configuration.
//!
//! In: the text, and a way to read files. Out: an [`Expanded`] matrix. What a run keeps is that text, so that a kept run does
//! not change with an inventory. Lines keep their numbers, hosts of lists come after them, and an error in one of those
//! names the file and line it came from.

mod ansible;
mod files;
mod ssh_config;

use std::collections::BTreeMap;
use std::path::Path;

use globset::{Glob, GlobMatcher};
use serde::Deserialize;
use toml::Spanned;

pub use files::Files;

use super::error::Errors;
use super::toml_shape::HostTable;
use super::{Matrix, SpecErrors, World};

/// A matrix with every host of its lists in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded {
    /// What a run keeps.
    pub text: String,
    pieces: Vec<Piece>,
}

/// Lines that come from another file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    /// Its first line, from 1.
    first: usize,
    file: String,
    /// The line of the file that made it.
    line: usize,
    /// Whether the lines after it are those of the file, too.
    verbatim: bool,
}

/// A host found in a list.
struct Found {
    name: String,
    /// What `ssh` takes; none for this machine.
    ssh: Option<String>,
    ssh_config: Option<String>,
    labels: BTreeMap<String, String>,
    file: String,
    line: usize,
}

#[derive(Deserialize)]
struct Lists {
    include: Option<Spanned<OneOrMany>>,
    #[serde(default)]
    hosts: Vec<Spanned<toml::Value>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListTable {
    ansible: Option<Spanned<String>>,
    ssh_config: Option<Spanned<String>>,
    pattern: Option<Spanned<String>>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    parallel: Option<usize>,
}

/// Only the tables of a file that is included.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostsOnly {
    #[serde(default)]
    host: Vec<HostTable>,
}

/// Only the lists of a matrix.
#[derive(Deserialize)]
struct ListsOnly {
    #[serde(default)]
    hosts: Vec<Spanned<ListTable>>,
}

impl Expanded {
    /// [`resolve`](super::resolve()), with errors where their text came from.
    pub fn resolve(&self, file: &str, world: &World<'_>) -> Result<Matrix, SpecErrors> {
        super::resolve(&self.text, file, world).map_err(|SpecErrors(mut errors)| {
            for error in &mut errors {
                let Some(piece) = self.pieces.iter().rfind(|piece| piece.first <= error.line) else { continue };
                error.file.clone_from(&piece.file);
                (error.line, error.column) = match piece.verbatim {
                    true => (piece.line + error.line - piece.first, error.column),
                    false => (piece.line, 1),
                };
            }
            SpecErrors(errors)
        })
    }

    fn add(&mut self, piece: (&str, usize, bool), text: &str) {
        let (file, line, verbatim) = piece;
        let first = self.text.lines().count() + 1;
        self.pieces.push(Piece { first, file: file.to_owned(), line, verbatim });
        self.text += text;
        if !self.text.ends_with('\n') {
            self.text.push('\n');
        }
    }
}

/// Reads the lists a matrix names. `file` is the name errors carry.
pub fn expand(text: &str, file: &str, files: &Files<'_>) -> Result<Expanded, SpecErrors> {
    let mut expanded = Expanded { text: text.to_owned(), pieces: vec![] };
    // What is no TOML is said once, by whoever resolves it.
    let Ok(Lists { include, hosts }) = toml::from_str::<Lists>(text) else { return Ok(expanded) };
    if include.is_none() && hosts.is_empty() {
        return Ok(expanded);
    }
    let mut errors = Errors::new(file, text);
    let mut others = vec![];
    let lists = toml::from_str::<ListsOnly>(text).map_err(|error| errors.add_toml(&error));
    expanded.text = without_lists(text, include.as_ref().map(Spanned::span));
    if !expanded.text.ends_with('\n') {
        expanded.text.push('\n');
    }
    if let Some(include) = include {
        let patterns = match include.get_ref() {
            OneOrMany::One(pattern) => std::slice::from_ref(pattern),
            OneOrMany::Many(patterns) => patterns,
        };
        for pattern in patterns {
            match files.matching(pattern) {
                Ok(paths) => paths.iter().for_each(|path| others.extend(included(path, files, &mut expanded))),
                Err(why) => errors.add(include.span(), why, Some("paths start where the matrix is".into())),
            }
        }
    }
    for table in lists.map(|lists| lists.hosts).unwrap_or_default() {
        list(&table, files, &mut expanded, &mut errors);
    }
    if toml::from_str::<toml::Table>(&expanded.text).is_err() && others.is_empty() && !expanded.pieces.is_empty() {
        let help = "write hosts as `[[host]]` tables, not as `host = […]`, and `[[hosts]]` likewise: others are added behind them";
        errors.add(0..0, "the hosts of its lists cannot be added to this file", Some(help.into()));
    }
    let own = errors.into_result(()).err().map_or_else(Vec::new, |errors| errors.0);
    let all: Vec<_> = own.into_iter().chain(others).collect();
    if all.is_empty() { Ok(expanded) } else { Err(SpecErrors(all)) }
}

/// The text with its lists as comments, so that what follows keeps its place.
fn without_lists(text: &str, include: Option<std::ops::Range<usize>>) -> String {
    let line_of = |offset: usize| text[..offset.min(text.len())].matches('\n').count();
    let include = include.map(|span| line_of(span.start)..=line_of(span.end.saturating_sub(1)));
    let mut in_list = false;
    let mut out = String::with_capacity(text.len() + 64);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let head: String = line.chars().filter(|c| !c.is_whitespace()).collect();
        if head.starts_with('[') {
            in_list = head.starts_with("[[hosts]]") || in_list && head.starts_with("[hosts.");
        }
        if in_list && !head.is_empty() || include.as_ref().is_some_and(|lines| lines.contains(&number)) {
            out += "# ";
        }
        out += line;
    }
    out
}

/// A file of `[[host]]` tables, as it is.
fn included(path: &Path, files: &Files<'_>, expanded: &mut Expanded) -> Vec<super::SpecError> {
    let name = files.shown(path);
    let text = match (files.read)(path) {
        Ok(text) => text,
        Err(error) => {
            let mut errors = Errors::new(&name, "");
            errors.add(0..0, error.to_string(), None);
            return errors.into_result(()).err().map_or_else(Vec::new, |errors| errors.0);
        }
    };
    let mut errors = Errors::new(&name, &text);
    match toml::from_str::<HostsOnly>(&text) {
        Ok(shape) => {
            let tables = text.lines().any(|line| line.trim_start().starts_with("[["));
            if !shape.host.is_empty() && !tables {
                errors.add(0..0, "a file that is included has `[[host]]` tables, not `host = […]`", None);
            }
        }
        Err(error) => errors.add_toml(&error),
    }
    match errors.into_result(()) {
        Ok(()) => {
            expanded.add((&name, 1, true), &text);
            vec![]
        }
        Err(errors) => errors.0,
    }
}

fn list(table: &Spanned<ListTable>, files: &Files<'_>, expanded: &mut Expanded, errors: &mut Errors<'_>) {
    let of = table.get_ref();
    let (source, found) = match (&of.ansible, &of.ssh_config) {
        (Some(path), None) => (path, ansible::hosts(path.get_ref(), files)),
        (None, Some(path)) => (path, ssh_config::hosts(path.get_ref(), files)),
        _ => {
            let help = "give `ansible = \"inventory.ini\"` or `ssh_config = \"~/.ssh/config\"`";
            errors.add(table.span(), "a list of hosts has one source", Some(help.into()));
            return;
        }
    };
    let found = match found {
        Ok(found) => found,
        Err(why) => return errors.add(source.span(), why, None),
    };
    let text = of.pattern.as_ref().map_or("*", |pattern| pattern.get_ref());
    let pattern: GlobMatcher = match Glob::new(text) {
        Ok(glob) => glob.compile_matcher(),
        Err(error) => {
            let span = of.pattern.as_ref().map_or(0..0, Spanned::span);
            return errors.add(span, format!("`{text}` is not a glob: {}", error.kind()), None);
        }
    };
    let groups =
        |host: &Found| host.labels.keys().any(|key| key.strip_prefix(GROUP).is_some_and(|g| pattern.is_match(g)));
    let (wanted, others): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|host| pattern.is_match(&host.name) || groups(host));
    if wanted.is_empty() {
        let names: Vec<&str> = others.iter().take(8).map(|host| host.name.as_str()).collect();
        let more = others.len() - names.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let help = if names.is_empty() { None } else { Some(format!("it has {}{more}", names.join(", "))) };
        let span = of.pattern.as_ref().unwrap_or(source).span();
        return errors.add(span, format!("no host of `{}` matches `{text}`", source.get_ref()), help);
    }
    for host in wanted {
        let text = written(&host, of);
        expanded.add((&host.file, host.line, false), &text);
    }
}

/// The label that says that a host is of a group begins so.
const GROUP: &str = "group.";

fn written(host: &Found, of: &ListTable) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let mut text = format!("[[host]]\nname = {}\n", quoted(&host.name));
    for (key, value) in [("ssh", &host.ssh), ("ssh_config", &host.ssh_config)] {
        if let Some(value) = value {
            text += &format!("{key} = {}\n", quoted(value));
        }
    }
    let labels: BTreeMap<_, _> = host.labels.iter().chain(&of.labels).collect();
    if !labels.is_empty() {
        let pairs: Vec<_> = labels.iter().map(|(key, value)| format!("{} = {}", quoted(key), quoted(value))).collect();
        text += &format!("labels = {{ {} }}\n", pairs.join(", "));
    }
    if let Some(parallel) = of.parallel {
        text += &format!("parallel = {parallel}\n");
    }
    text
}

#[cfg(test)]
mod tests;
