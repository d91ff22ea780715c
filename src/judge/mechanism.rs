//! What inside a layer is at fault: the seccomp rule, the capability, the kernel's version, the missing file. The layer is
//! earned by control cells; the mechanism is named by a table (`mechanism.toml`) over what was seen here and there.
//!
//! In: one failing check of one cell, the layers its controls leave, what its controls saw. Out: a [`Mechanism`] with the
//! evidence. Pure.

use std::sync::OnceLock;

use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Serialize};

use super::blame::{Answer, Controls, Layer};
use super::contract::judge;
use super::learn::version_order;
use super::scene::{Patterns, Scene, Signature, words};
use super::{Outcome, errno_name};
use crate::catalog::{Catalogue, Check};
use crate::id::CheckId;

/// What is at fault inside a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mechanism {
    /// The word for it: `seccomp-rule`, `capability`, `kernel-version`…
    pub id: String,
    /// In a few words, naming the call, capability, file or version.
    pub what: String,
    /// Whether what was seen says so itself; otherwise it is the likeliest of what is left.
    pub sure: bool,
    /// The check that shows it, where it is not the failing one.
    pub through: Option<CheckId>,
    /// What was seen here and there.
    pub evidence: Vec<String>,
}

/// One failing check of one cell, with all that may explain it.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The catalogue it is judged by.
    pub catalogue: &'a Catalogue,
    /// Which check.
    pub check: &'a CheckId,
    /// The cell.
    pub here: Scene<'a>,
    /// What the controls answered.
    pub controls: Controls,
    /// What the native control saw.
    pub native: Option<Scene<'a>>,
    /// What the empty image under the same engine saw.
    pub scratch: Option<Scene<'a>>,
    /// What the same image saw without policy.
    pub no_policy: Option<Scene<'a>>,
    /// What another cell saw in which the check passes, where no control could be asked.
    pub other: Option<Scene<'a>>,
    /// The layers the controls leave.
    pub layers: &'a [Layer],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    /// What an observation says itself.
    sure: Vec<Row>,
    /// What a check stands on.
    needs: Vec<Needs>,
    /// What is left.
    likely: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    what: String,
    of: Vec<Layer>,
    #[serde(default)]
    checks: Globs,
    saw: Option<Patterns>,
    step: Option<Patterns>,
    /// The kernel or the libc is older than the check's `since`.
    too_old: Option<String>,
    #[serde(default)]
    when: Signature,
    /// Facts that belong to the evidence.
    #[serde(default)]
    tell: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Needs {
    checks: Globs,
    /// Globs in which `{2}` and `{3}` stand for segments of the check's id.
    on: Vec<String>,
}

/// Globs over check ids, in their order; none: every check.
#[derive(Debug, Default, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub(super) struct Globs(Vec<GlobMatcher>);

impl TryFrom<Vec<String>> for Globs {
    type Error = String;
    fn try_from(texts: Vec<String>) -> Result<Self, String> {
        let glob = |text: &String| {
            Glob::new(text).map(|glob| glob.compile_matcher()).map_err(|error| format!("`{text}`: {}", error.kind()))
        };
        texts.iter().map(glob).collect::<Result<_, _>>().map(Self)
    }
}

impl Globs {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn matches(&self, check: &CheckId) -> bool {
        self.0.is_empty() || self.0.iter().any(|glob| glob.is_match(check.as_str()))
    }
}

fn tables() -> &'static Tables {
    static TABLES: OnceLock<Tables> = OnceLock::new();
    let none = || Tables { sure: vec![], needs: vec![], likely: vec![] };
    // A test parses the file, so a release cannot have a broken one.
    TABLES.get_or_init(|| toml::from_str(include_str!("mechanism.toml")).unwrap_or_else(|_| none()))
}

/// What is at fault, as far as can be said.
pub fn mechanism(case: &Case<'_>) -> Option<Mechanism> {
    let tables = tables();
    let named_by = |rows: &[Row], check: &CheckId, counts: fn(&Row) -> bool| {
        let row = rows.iter().find(|row| counts(row) && row.fits(case, check))?;
        Some((row.id.clone(), row.words(case, check), row.tell.clone()))
    };
    let make = |(id, what, tell): (String, String, Vec<String>), sure, through: Option<CheckId>| {
        let evidence = evidence(case, through.as_ref(), &tell);
        Mechanism { id, what, sure, through, evidence }
    };
    let named = |rows: &[Row], check: &CheckId| named_by(rows, check, |_| true);
    if let Some(row) = named(&tables.sure, case.check) {
        return Some(make(row, true, None));
    }
    for culprit in culprits(case, &tables.needs) {
        // A row for whatever is left fits every culprit, also one whose own layer is not at fault here.
        let likely = || named_by(&tables.likely, &culprit, |row| !row.checks.is_empty() || row.saw.is_some());
        if let Some(row) = named(&tables.sure, &culprit).or_else(likely) {
            return Some(make(row, true, Some(culprit)));
        }
    }
    named(&tables.likely, case.check).map(|row| make(row, false, None))
}

/// What the check stands on and is not here as it is where the check passes, in the order of the table.
fn culprits(case: &Case<'_>, needs: &[Needs]) -> Vec<CheckId> {
    let mut found = vec![];
    let Some(observations) = case.here.observations else { return found };
    for needs in needs.iter().filter(|needs| needs.checks.matches(case.check)) {
        for glob in needs.on.iter().filter_map(|on| filled(on, case.check)) {
            let suspects = observations.iter().filter(|(id, _)| *id != case.check && glob.is_match(id.as_str()));
            for (id, observation) in suspects {
                let here = words(observation);
                let there = case.reference().and_then(|scene| scene.saw(id.as_str()));
                let flipped = match there {
                    Some(there) => here != "ok" && here != there && here != "not asked",
                    None => case
                        .catalogue
                        .row(id)
                        .is_some_and(|row| matches!(judge(row, observation), Outcome::Fail { .. })),
                };
                if flipped && !found.contains(id) {
                    found.push(id.clone());
                }
            }
        }
    }
    found
}

/// A glob with segments of an id filled in; none where the id has too few.
fn filled(on: &str, check: &CheckId) -> Option<GlobMatcher> {
    let mut on = on.to_owned();
    for (place, segment) in [("{2}", 1), ("{3}", 2)] {
        if on.contains(place) {
            on = on.replace(place, check.as_str().split('.').nth(segment)?);
        }
    }
    Glob::new(&on).ok().map(|glob| glob.compile_matcher())
}

impl<'a> Case<'a> {
    /// The nearest cell in which the check passes.
    fn reference(&self) -> Option<Scene<'a>> {
        let controls = self.controls;
        [
            (controls.no_policy, self.no_policy),
            (controls.native, self.native),
            (controls.scratch, self.scratch),
            (Answer::Passes, self.other),
        ]
        .into_iter()
        .find_map(|(answer, scene)| scene.filter(|_| answer == Answer::Passes))
    }

    fn row(&self, check: &CheckId) -> Option<&'a Check> {
        self.catalogue.row(check)
    }
}

impl Row {
    fn fits(&self, case: &Case<'_>, check: &CheckId) -> bool {
        let observation = case.here.observations.and_then(|all| all.get(check));
        let saw = observation.map(words);
        let step = observation.and_then(|observation| observation.step.as_deref());
        self.checks.matches(check)
            && self.of.iter().any(|part| case.layers.iter().any(|layer| layer.concerns(*part)))
            && self.saw.as_ref().is_none_or(|patterns| patterns.fits(saw.as_deref()))
            && self.step.as_ref().is_none_or(|patterns| patterns.fits(step))
            && self.too_old.as_deref().is_none_or(|what| too_old(case, check, what).is_some())
            && self.when.holds(&case.here)
    }

    /// `{check}`, `{name}` (its last segments), `{saw}`, `{since}`, `{version}` and `{value}` filled in.
    fn words(&self, case: &Case<'_>, check: &CheckId) -> String {
        let saw = case.here.saw(check.as_str()).unwrap_or_default();
        let name = check.as_str().split_once('.').map_or(check.as_str(), |(_, name)| name);
        let short = saw.trim_end_matches(" by filter").trim_end_matches(" by kernel");
        let value = short.strip_prefix("value ").or_else(|| short.strip_prefix("errno ")).unwrap_or(short);
        let (since, version) = self.too_old.as_deref().and_then(|what| too_old(case, check, what)).unwrap_or_default();
        self.what
            .replace("{check}", check.as_str())
            .replace("{NAME}", &name.to_uppercase())
            .replace("{name}", name)
            .replace("{saw}", short)
            .replace("{value}", value)
            .replace("{since}", &since)
            .replace("{version}", &version)
    }
}

/// The version a check needs and the one that is there, where the latter is older. `what` is `linux` or `glibc`.
fn too_old(case: &Case<'_>, check: &CheckId, what: &str) -> Option<(String, String)> {
    let since = case.row(check)?.since.as_deref()?;
    let (whose, wanted) = since.split_once(' ')?;
    let fact = match what {
        "linux" => case.here.fact("host.kernel.release"),
        _ => case.here.fact("image.libc.version").filter(|_| case.here.fact("image.libc.kind") == Some(what)),
    }?;
    (whose == what && version_order(fact, wanted).is_lt()).then(|| (wanted.to_owned(), fact.to_owned()))
}

/// What was seen here and in each control, of the check and of what it stands on; capability sets where they differ; facts.
fn evidence(case: &Case<'_>, through: Option<&CheckId>, tell: &[String]) -> Vec<String> {
    let mut lines = vec![];
    let places = [
        ("natively", case.native),
        ("with the empty image", case.scratch),
        ("without policy", case.no_policy),
        ("elsewhere", case.other),
    ];
    let mut compare = |check: &CheckId| {
        let here = case.here.saw(check.as_str()).unwrap_or_else(|| "not seen".to_owned());
        let there: Vec<String> = places
            .iter()
            .filter_map(|(place, scene)| Some(format!("{} {place}", (*scene)?.saw(check.as_str())?)))
            .collect();
        let there = if there.is_empty() { "no control answered".to_owned() } else { there.join(", ") };
        lines.push(format!("{check}: {here} here; {there}"));
        let observation = case.here.observations.and_then(|all| all.get(check));
        if let Some(filter) = observation.and_then(|observation| observation.filter.as_deref())
            && !matches!(filter, "allow" | "unknown")
        {
            lines.push(format!("the filter answers {} to it, asked without making the call", filter_words(filter)));
        }
    };
    compare(case.check);
    if let Some(through) = through {
        compare(through);
    }
    if let (Some(here), Some(there)) = (case.here.saw(SET), case.reference().and_then(|scene| scene.saw(SET)))
        && here != there
        && through.is_some_and(|through| through.group() == "cap")
    {
        lines.push(format!("{SET}: {here} here, {there} where it passes"));
    }
    for name in tell {
        if let Some(value) = case.here.fact(name) {
            lines.push(format!("{name} is {value}"));
        }
    }
    lines
}

/// The check with the capabilities in force.
const SET: &str = "cap.set.effective";

/// `errno 1` → `EPERM`.
fn filter_words(filter: &str) -> String {
    match filter.strip_prefix("errno ").and_then(|number| number.parse().ok()) {
        Some(errno) => errno_name(errno),
        None => filter.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_parses_and_names_checks_that_exist() {
        let tables: Tables = toml::from_str(include_str!("mechanism.toml")).unwrap();
        let catalogue = Catalogue::built_in();
        let on = |on: &String| Glob::new(&on.replace("{2}", "*").replace("{3}", "*")).unwrap().compile_matcher();
        let on: Vec<GlobMatcher> = tables.needs.iter().flat_map(|needs| needs.on.iter().map(on)).collect();
        let globs = tables.needs.iter().flat_map(|needs| &needs.checks.0).chain(&on);
        let rows = tables.sure.iter().chain(&tables.likely);
        let mut missing = vec![];
        for glob in globs.chain(rows.flat_map(|row| &row.checks.0)) {
            if !catalogue.rows().any(|row| glob.is_match(row.id.as_str())) {
                missing.push(glob.glob().to_string());
            }
        }
        assert_eq!(missing, Vec::<String>::new());
    }
}
