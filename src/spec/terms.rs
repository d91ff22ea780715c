//! What a team adds to the catalogue's judgement: a `[profile]` that raises or lowers requirements, and `[[waiver]]`s for
//! failures that are expected for a while. In: the text of a matrix, also of one that a kept run brings along, of which only
//! these tables are read. Out: [`Terms`]. Pure; which day it is is told.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use globset::{Glob, GlobMatcher};
use jiff::civil::Date;
use serde::Deserialize;
use toml::Spanned;

use super::error::Errors;
use super::{CellGlob, SpecErrors};
use crate::catalog::Requirement;
use crate::id::{CellId, CheckId};

/// Profile and waivers of a matrix.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Terms {
    /// Requirements that differ from the catalogue's.
    pub profile: Profile,
    /// Failures that are expected.
    pub waivers: Vec<Waiver>,
}

/// Requirements that differ from the catalogue's, under a name that a report can cite.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    /// What it is called; empty where there is none.
    pub name: String,
    /// In the order of the file; the last one that matches a check counts.
    pub rules: Vec<ProfileRule>,
}

/// One change of requirements.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileRule {
    /// Which checks.
    pub checks: Vec<CheckGlob>,
    /// How much they matter here.
    pub requirement: Requirement,
    /// Why, in the user's words.
    pub reason: String,
}

/// A failure that is expected until a day. It changes the verdict, never the fact.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiver {
    /// In which cells.
    pub cells: CellGlob,
    /// Of which checks.
    pub checks: Vec<CheckGlob>,
    /// Why, in the user's words.
    pub reason: String,
    /// Where it is discussed.
    pub link: Option<String>,
    /// Who looks after it.
    pub owner: Option<String>,
    /// The last day on which it holds.
    pub until: Date,
    /// Its line in the matrix, from 1.
    pub line: usize,
}

impl Waiver {
    /// Whether it covers this check of this cell, whatever day it is.
    pub fn covers(&self, cell: &CellId, check: &CheckId) -> bool {
        self.cells.matches(cell) && self.checks.iter().any(|glob| glob.matches(check))
    }
}

impl fmt::Display for Waiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checks: Vec<String> = self.checks.iter().map(CheckGlob::to_string).collect();
        write!(f, "the waiver for {} in {} (line {})", checks.join(", "), self.cells, self.line)
    }
}

/// A glob over ids of checks: `syscall.io_uring_*`, or a group with all it has: `cpu.*`.
#[derive(Debug, Clone)]
pub struct CheckGlob {
    text: String,
    glob: GlobMatcher,
}

impl CheckGlob {
    /// Whether the check matches.
    pub fn matches(&self, check: &CheckId) -> bool {
        self.glob.is_match(check.as_str())
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for CheckGlob {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for CheckGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl FromStr for CheckGlob {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let glob = Glob::new(text).map_err(|error| format!("`{text}` is not a glob: {}", error.kind()))?;
        Ok(Self { text: text.to_owned(), glob: glob.compile_matcher() })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProfileTable {
    name: Option<String>,
    #[serde(default)]
    rule: Vec<ProfileRuleTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileRuleTable {
    checks: Spanned<Vec<Spanned<String>>>,
    requirement: Requirement,
    reason: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaiverTable {
    cells: Spanned<String>,
    checks: Spanned<Vec<Spanned<String>>>,
    reason: Spanned<String>,
    link: Option<String>,
    owner: Option<String>,
    until: Spanned<toml::Value>,
}

/// Reads profile and waivers of a matrix and nothing else of it: the matrix of a kept run may name paths that are gone, or
/// have keys of a newer abicus.
pub fn terms(text: &str, file: &str) -> Result<Terms, SpecErrors> {
    #[derive(Deserialize)]
    struct File {
        profile: Option<ProfileTable>,
        #[serde(default)]
        waiver: Vec<Spanned<WaiverTable>>,
    }
    let mut errors = Errors::new(file, text);
    let shape: File = match toml::from_str(text) {
        Ok(shape) => shape,
        Err(error) => {
            errors.add_toml(&error);
            return errors.into_result(Terms::default());
        }
    };
    let terms = read(shape.profile, shape.waiver, &mut errors);
    errors.into_result(terms)
}

/// Tables → terms. `errors` learns what is wrong with them.
pub(super) fn read(
    profile: Option<ProfileTable>,
    waivers: Vec<Spanned<WaiverTable>>,
    errors: &mut Errors<'_>,
) -> Terms {
    let profile = profile.map_or_else(Profile::default, |table| Profile {
        name: table.name.unwrap_or_else(|| "profile".to_owned()),
        rules: table
            .rule
            .into_iter()
            .map(|rule| ProfileRule {
                checks: globs(rule.checks, errors),
                requirement: rule.requirement,
                reason: words(rule.reason, errors),
            })
            .collect(),
    });
    let waivers = waivers.into_iter().filter_map(|table| waiver(table, errors)).collect();
    Terms { profile, waivers }
}

fn waiver(table: Spanned<WaiverTable>, errors: &mut Errors<'_>) -> Option<Waiver> {
    let line = errors.line(table.span().start);
    let table = table.into_inner();
    let cells = match table.cells.get_ref().parse::<CellGlob>() {
        Ok(cells) => Some(cells),
        Err(error) => {
            errors.add(table.cells.span(), error.to_string(), None);
            None
        }
    };
    let checks = globs(table.checks, errors);
    let reason = words(table.reason, errors);
    let until = date(&table.until, errors);
    Some(Waiver { cells: cells?, checks, reason, link: table.link, owner: table.owner, until: until?, line })
}

fn globs(list: Spanned<Vec<Spanned<String>>>, errors: &mut Errors<'_>) -> Vec<CheckGlob> {
    if list.get_ref().is_empty() {
        errors.add(list.span(), "`checks` is empty", Some("name checks, or `[\"*\"]` for all".into()));
    }
    let mut globs = vec![];
    for text in list.into_inner() {
        match text.get_ref().parse() {
            Ok(glob) => globs.push(glob),
            Err(error) => errors.add(text.span(), error, None),
        }
    }
    globs
}

fn words(text: Spanned<String>, errors: &mut Errors<'_>) -> String {
    if text.get_ref().trim().is_empty() {
        errors.add(text.span(), "`reason` says nothing", Some("say why, for whoever reads this in a year".into()));
    }
    text.into_inner()
}

/// A TOML date, or the same as text.
fn date(value: &Spanned<toml::Value>, errors: &mut Errors<'_>) -> Option<Date> {
    let text = match value.get_ref() {
        toml::Value::Datetime(date) => date.to_string(),
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let date = text.parse().ok();
    if date.is_none() {
        errors.add(value.span(), format!("`{text}` is not a day"), Some("write `until = 2027-06-30`".into()));
    }
    date
}

/// Where a waiver or a rule names cells or checks that there are none of.
pub(super) fn nothing_matches(
    terms: &Terms,
    text: &str,
    cells: &[CellId],
    checks: &[&CheckId],
    errors: &mut Errors<'_>,
) {
    let place = |needle: &str| -> Range<usize> {
        let start = text.find(&format!("\"{needle}\"")).or_else(|| text.find(needle)).unwrap_or(0);
        start..start
    };
    for waiver in &terms.waivers {
        if !cells.iter().any(|cell| waiver.cells.matches(cell)) {
            errors.add(
                place(&waiver.cells.to_string()),
                format!("`{}` of a waiver matches no cell of this matrix", waiver.cells),
                Some("`abicus plan` prints the cells".into()),
            );
        }
    }
    let named = terms.waivers.iter().flat_map(|waiver| &waiver.checks);
    for glob in named.chain(terms.profile.rules.iter().flat_map(|rule| &rule.checks)) {
        if !checks.iter().any(|check| glob.matches(check)) {
            let near = super::error::did_you_mean(glob.as_str(), checks.iter().map(|check| check.as_str()));
            let help = near.unwrap_or_else(|| "`abicus checks` lists them".into());
            errors.add(place(glob.as_str()), format!("no check matches `{glob}`"), Some(help));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        unknown = { to = "this abicus" }
        [profile]
        name = "certified"
        [[profile.rule]]
        checks = ["kernel.io_uring.*"]
        requirement = "must"
        reason = "our images need io_uring"
        [[waiver]]
        cells = "*:docker*:centos-6"
        checks = ["libc.start", "tool.*"]
        reason = "vsyscall=none on this fleet"
        link = "https://example.org/1"
        owner = "platform"
        until = 2027-06-30
    "#;

    #[test]
    fn profile_and_waivers_are_read_whatever_else_a_matrix_has() {
        let terms = terms(TEXT, "matrix.toml").unwrap();
        assert_eq!(terms.profile.name, "certified");
        assert_eq!(terms.profile.rules[0].requirement, Requirement::Must);
        let waiver = &terms.waivers[0];
        assert_eq!((waiver.until, waiver.line), (jiff::civil::date(2027, 6, 30), 9));
        let covers = |cell: &str, check: &str| waiver.covers(&cell.parse().unwrap(), &check.parse().unwrap());
        assert!(covers("rack7:docker-crun:centos-6", "tool.sh"));
        assert!(!covers("rack7:podman:centos-6", "tool.sh"));
        assert!(!covers("rack7:docker:centos-6", "libc.start.early"));
    }

    #[test]
    fn a_waiver_without_end_or_reason_is_refused_with_its_place() {
        let error = |text: &str| terms(text, "m.toml").unwrap_err().to_string();
        let eternal = "[[waiver]]\ncells = \"*:*:*\"\nchecks = [\"*\"]\nreason = \"x\"\n";
        assert!(error(eternal).contains("m.toml:1:1: missing field `until`"), "{}", error(eternal));
        let bad = format!("{eternal}until = \"tomorrow\"\n").replace("\"x\"", "\" \"");
        let text = error(&bad);
        assert!(text.contains("m.toml:4:10: `reason` says nothing"), "{text}");
        assert!(text.contains("m.toml:5:9: `tomorrow` is not a day"), "{text}");
        let shape = format!("{eternal}until = 2027-01-01\n").replace("*:*:*", "docker");
        assert!(error(&shape).contains("host:engine:image"), "{}", error(&shape));
    }
}
