//! The checks as data: what each asks, what passing means, how much it matters. Rows live in `probes/catalog/*.toml`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::id::CheckId;

/// How much an ordinary program suffers when the check fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Requirement {
    /// Special programs only.
    May,
    /// Some programs fail, or all are slow.
    Should,
    /// Ordinary programs fail.
    Must,
}

/// What passing means. `probes/catalog/README.md` has the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Contract {
    /// Only `ok` passes.
    Works,
    /// `ok` or absent: callers fall back on ENOSYS only.
    Fallback,
    /// The kernel was reached, or honestly absent.
    Reach,
    /// The value meets `expect`, `min` and `max`.
    Value,
    /// Anything passes: a fact worth comparing.
    Record,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Stable id; its first segment is the group.
    pub id: CheckId,
    /// What is asked, in words.
    pub title: String,
    /// What passing means.
    pub contract: Contract,
    /// How much it matters.
    pub requirement: Requirement,
    /// Names of errnos that pass too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Globs, one of which a value matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect: Vec<String>,
    /// Smallest value that passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Largest value that passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// First version that has it: `linux 5.3`, `glibc 2.34`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Architectures that ask it; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arch: Vec<String>,
    /// Man page, kernel commit, specification.
    pub reference: String,
    /// What breaks without it, in one sentence.
    pub breaks: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The side effect it has, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// Which answer no test machine can show, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_sided: Option<String>,
    /// Why a `must` check may fail natively on a healthy host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<String>,
}

impl Check {
    /// A row that asks for nothing but that it works, of requirement `must`: what tests start from.
    pub fn works(id: CheckId) -> Self {
        Self {
            title: id.to_string(),
            id,
            contract: Contract::Works,
            requirement: Requirement::Must,
            allow: vec![],
            expect: vec![],
            min: None,
            max: None,
            since: None,
            arch: vec![],
            reference: String::new(),
            breaks: String::new(),
            remedy: None,
            effect: None,
            one_sided: None,
            native: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    #[serde(default)]
    check: Vec<Check>,
}

/// All checks by id.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    checks: BTreeMap<CheckId, Check>,
}

/// Why a catalogue file was refused.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Not TOML, or not the shape of a row.
    #[error("{file}: {source}")]
    Toml {
        /// The file.
        file: String,
        /// What the parser said.
        source: Box<toml::de::Error>,
    },
    /// Two rows have one id.
    #[error("{file}: check `{id}` is there twice")]
    Twice {
        /// The file that has it the second time.
        file: String,
        /// The id.
        id: CheckId,
    },
}

include!(concat!(env!("OUT_DIR"), "/catalogue_files.rs"));

impl Catalogue {
    /// The built-in catalogue.
    pub fn built_in() -> &'static Catalogue {
        static BUILT_IN: OnceLock<Catalogue> = OnceLock::new();
        // A test parses every row, so a release cannot have a broken one.
        BUILT_IN.get_or_init(|| Catalogue::parse(CATALOGUE_FILES.iter().copied()).unwrap_or_default())
    }

    /// Reads catalogue files, given as name and text.
    pub fn parse<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, CatalogueError> {
        let mut checks = BTreeMap::new();
        for (file, text) in files {
            let rows: Rows = toml::from_str(text)
                .map_err(|source| CatalogueError::Toml { file: file.to_owned(), source: Box::new(source) })?;
            for check in rows.check {
                let id = check.id.clone();
                if checks.insert(id.clone(), check).is_some() {
                    return Err(CatalogueError::Twice { file: file.to_owned(), id });
                }
            }
        }
        Ok(Self { checks })
    }

    /// The same rows with other requirements.
    pub fn with_requirements(&self, mut requirement: impl FnMut(&Check) -> Requirement) -> Self {
        let mut changed = self.clone();
        for row in changed.checks.values_mut() {
            row.requirement = requirement(row);
        }
        changed
    }

    /// The row of a check.
    pub fn row(&self, id: &CheckId) -> Option<&Check> {
        self.checks.get(id)
    }

    /// How much a check matters. What the catalogue does not have cannot be judged, so it never turns a cell red.
    pub fn requirement(&self, id: &CheckId) -> Requirement {
        self.row(id).map_or(Requirement::May, |row| row.requirement)
    }

    /// All rows in order of id.
    pub fn rows(&self) -> impl Iterator<Item = &Check> {
        self.checks.values()
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.checks.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.checks.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalogue_parses() {
        let catalogue = Catalogue::parse(CATALOGUE_FILES.iter().copied()).unwrap();
        assert!(!catalogue.is_empty());
        assert_eq!(catalogue.len(), Catalogue::built_in().len());
    }

    #[test]
    fn a_second_row_with_one_id_is_refused() {
        let row = "[[check]]\nid='a.b'\ntitle='t'\ncontract='works'\nrequirement='may'\nreference='r'\nbreaks='b'\n";
        let error = Catalogue::parse([("one.toml", row), ("two.toml", row)]).unwrap_err();
        assert_eq!(error.to_string(), "two.toml: check `a.b` is there twice");
    }
}
