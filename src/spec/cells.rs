//! Which cells: globs over `host:engine:image`, and selections from the command line.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use globset::{Glob, GlobMatcher};

use crate::id::CellId;

/// Three globs, one per axis: `local:docker*:debian-*`.
#[derive(Debug, Clone)]
pub struct CellGlob {
    text: String,
    host: GlobMatcher,
    engine: GlobMatcher,
    image: GlobMatcher,
}

impl CellGlob {
    /// Whether the cell matches on all three axes.
    pub fn matches(&self, cell: &CellId) -> bool {
        self.host.is_match(cell.host.as_str())
            && self.engine.is_match(cell.engine.as_str())
            && self.image.is_match(cell.image.as_str())
    }
}

impl PartialEq for CellGlob {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for CellGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// Why a glob over cells was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CellGlobError {
    /// Not three segments.
    #[error("`{0}` is not a glob over cells: write host:engine:image, for instance `local:docker*:debian-*`")]
    Shape(String),
    /// A segment is not a glob.
    #[error("`{0}` is not a glob: {1}")]
    Glob(String, String),
}

impl FromStr for CellGlob {
    type Err = CellGlobError;
    fn from_str(text: &str) -> Result<Self, CellGlobError> {
        let parts: Vec<&str> = text.split(':').collect();
        let [host, engine, image] = parts[..] else {
            return Err(CellGlobError::Shape(text.to_owned()));
        };
        Ok(Self { text: text.to_owned(), host: glob(host)?, engine: glob(engine)?, image: glob(image)? })
    }
}

fn glob(text: &str) -> Result<GlobMatcher, CellGlobError> {
    Glob::new(text)
        .map(|glob| glob.compile_matcher())
        .map_err(|error| CellGlobError::Glob(text.to_owned(), error.kind().to_string()))
}

/// Which cells of a matrix a command is about. Values of one axis are alternatives; the axes must all agree.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    cells: Vec<CellGlob>,
    hosts: Vec<GlobMatcher>,
    engines: Vec<GlobMatcher>,
    images: Vec<GlobMatcher>,
    /// By key; without values, any will do.
    labels: BTreeMap<String, Vec<GlobMatcher>>,
}

impl Selection {
    /// From globs as given on the command line; an empty list does not restrict.
    pub fn new(
        cells: &[String],
        hosts: &[String],
        engines: &[String],
        images: &[String],
    ) -> Result<Self, CellGlobError> {
        let globs = |texts: &[String]| texts.iter().map(|text| glob(text)).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            cells: cells.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
            hosts: globs(hosts)?,
            engines: globs(engines)?,
            images: globs(images)?,
            labels: BTreeMap::new(),
        })
    }

    /// Only hosts with these labels, each `key` or `key=glob`. Values of one key are alternatives; the keys must all agree.
    pub fn labelled(mut self, labels: &[String]) -> Result<Self, CellGlobError> {
        for label in labels {
            let (key, value) = label.split_once('=').map_or((label.as_str(), None), |(key, value)| (key, Some(value)));
            let values = self.labels.entry(key.to_owned()).or_default();
            if let Some(value) = value {
                values.push(glob(value)?);
            }
        }
        Ok(self)
    }

    /// Whether a host has the labels asked for.
    pub fn takes(&self, host: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|(key, globs)| {
            host.get(key).is_some_and(|value| globs.is_empty() || globs.iter().any(|glob| glob.is_match(value)))
        })
    }

    /// Whether the cell is selected.
    pub fn matches(&self, cell: &CellId) -> bool {
        let any = |globs: &[GlobMatcher], name: &str| globs.is_empty() || globs.iter().any(|glob| glob.is_match(name));
        (self.cells.is_empty() || self.cells.iter().any(|glob| glob.matches(cell)))
            && any(&self.hosts, cell.host.as_str())
            && any(&self.engines, cell.engine.as_str())
            && any(&self.images, cell.image.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_matches_each_axis_by_itself() {
        let glob: CellGlob = "local:docker*:debian-1[12]".parse().unwrap();
        assert!(glob.matches(&"local:docker-crun:debian-11".parse().unwrap()));
        assert!(!glob.matches(&"local:podman:debian-11".parse().unwrap()));
        assert!(!glob.matches(&"local:docker:debian-13".parse().unwrap()));
    }

    #[test]
    fn a_glob_needs_three_segments() {
        let error = "local:docker".parse::<CellGlob>().unwrap_err().to_string();
        assert!(error.contains("host:engine:image"), "{error}");
    }

    #[test]
    fn hosts_are_selected_by_labels() {
        let host =
            BTreeMap::from([("site".to_owned(), "lab-2".to_owned()), ("group.web".to_owned(), "yes".to_owned())]);
        for (labels, taken) in [
            (&[][..], true),
            (&["site=lab-2"], true),
            (&["site=lab*", "group.web"], true),
            (&["site=office", "site=lab-?"], true),
            (&["site=office"], false),
            (&["site=lab*", "group.db"], false),
            (&["sit=lab*"], false),
        ] {
            let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
            assert_eq!(Selection::default().labelled(&labels).unwrap().takes(&host), taken, "{labels:?}");
        }
        assert!(Selection::default().labelled(&["a=[".to_owned()]).is_err());
    }

    #[test]
    fn selections_of_different_axes_must_all_agree() {
        let text = |s: &str| vec![s.to_owned()];
        let selection = Selection::new(&[], &text("local"), &text("docker*"), &text("debian-*")).unwrap();
        assert!(selection.matches(&"local:docker:debian-12".parse().unwrap()));
        assert!(!selection.matches(&"local:docker:scratch".parse().unwrap()));
        assert!(!selection.matches(&"rack7:docker:debian-12".parse().unwrap()));
    }
}
