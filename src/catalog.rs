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

/// `groups.toml`: what groups of checks have in common. Their titles are for people.
#[derive(Deserialize)]
struct Groups {
    remedy: Vec<Remedy>,
}

/// What to do about checks that have no remedy of their own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Remedy {
    checks: Vec<String>,
    text: String,
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
const GROUPS: &str = include_str!("../probes/catalog/groups.toml");

impl Catalogue {
    /// The built-in catalogue.
    pub fn built_in() -> &'static Catalogue {
        static BUILT_IN: OnceLock<Catalogue> = OnceLock::new();
        // A test parses every row, so a release cannot have a broken one.
        BUILT_IN.get_or_init(|| {
            Catalogue::parse(CATALOGUE_FILES.iter().copied())
                .and_then(|rows| rows.inheriting(GROUPS))
                .unwrap_or_default()
        })
    }

    /// The same rows, where one has no remedy with the first that `groups` has for it.
    fn inheriting(mut self, groups: &str) -> Result<Self, CatalogueError> {
        let groups: Groups = toml::from_str(groups)
            .map_err(|source| CatalogueError::Toml { file: "groups.toml".to_owned(), source: Box::new(source) })?;
        for row in self.checks.values_mut().filter(|row| row.remedy.is_none()) {
            let shared =
                groups.remedy.iter().find(|remedy| remedy.checks.iter().any(|glob| names(glob, row.id.as_str())));
            row.remedy = shared.map(|remedy| remedy.text.clone());
        }
        Ok(self)
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

/// Whether `a.b.*` or a whole id names this check.
fn names(glob: &str, id: &str) -> bool {
    glob.strip_suffix('*').map_or(glob == id, |prefix| id.starts_with(prefix))
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
    fn what_must_and_should_hold_has_a_remedy_and_every_row_says_what_breaks() {
        let rows = || Catalogue::built_in().rows();
        let bare: Vec<_> = rows().filter(|row| row.requirement > Requirement::May && row.remedy.is_none()).collect();
        assert!(bare.is_empty(), "{:?}", bare.iter().map(|row| row.id.as_str()).collect::<Vec<_>>());
        // "nothing", "nothing ordinary", "nothing since 2.6": nobody learns anything from these.
        let empty: Vec<_> = rows()
            .filter(|row| row.breaks.starts_with("nothing") && row.breaks.split_whitespace().count() < 5)
            .map(|row| row.id.as_str())
            .collect();
        assert!(empty.is_empty(), "{empty:?}");
    }

    #[test]
    fn every_source_names_a_page_and_no_two_rows_ask_the_same() {
        let mut titles = BTreeMap::new();
        for row in Catalogue::built_in().rows() {
            let vague = |source: &str| !source.starts_with("https://") && source.ends_with('/');
            let bare = |source: &str| {
                source.starts_with("Documentation/") || source.ends_with(".rst") && !source.contains(' ')
            };
            let wrong: Vec<_> = row.reference.split("; ").filter(|source| vague(source) || bare(source)).collect();
            assert!(wrong.is_empty(), "{}: {wrong:?}", row.id);
            let other = titles.insert(&row.title, &row.id);
            assert_eq!(other, None, "{} has the same title", row.id);
        }
    }

    #[test]
    fn a_remedy_of_its_own_comes_first_and_every_shared_one_is_somebodys() {
        let own = Catalogue::parse(CATALOGUE_FILES.iter().copied()).unwrap();
        let all = own.clone().inheriting(GROUPS).unwrap();
        for row in own.rows() {
            assert!(row.remedy.is_none() || all.row(&row.id) == Some(row), "{}", row.id);
        }
        let groups: Groups = toml::from_str(GROUPS).unwrap();
        for remedy in groups.remedy {
            assert!(all.rows().any(|row| row.remedy.as_ref() == Some(&remedy.text)), "{:?}", remedy.checks);
            for glob in &remedy.checks {
                assert!(all.rows().any(|row| names(glob, row.id.as_str())), "{glob} names no check");
            }
        }
        let titles: toml::Table = toml::from_str(GROUPS).unwrap();
        let known: Vec<_> = titles["group"].as_array().unwrap().iter().map(|group| group["id"].as_str()).collect();
        for row in all.rows() {
            assert!(known.contains(&row.id.as_str().split('.').next()), "{} is of no group", row.id);
        }
    }

    #[test]
    fn a_second_row_with_one_id_is_refused() {
        let row = "[[check]]\nid='a.b'\ntitle='t'\ncontract='works'\nrequirement='may'\nreference='r'\nbreaks='b'\n";
        let error = Catalogue::parse([("one.toml", row), ("two.toml", row)]).unwrap_err();
        assert_eq!(error.to_string(), "two.toml: check `a.b` is there twice");
    }
}
