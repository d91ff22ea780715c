//! Incompatibilities that are documented in public, by name. In: one cell in which something fails. Out: the entries of
//! `known/*.toml` whose signature it has, with links, fix and workaround. A failure that matches none is still one. Pure.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::blame::Layer;
use super::mechanism::Globs;
use super::scene::{Patterns, Scene, Signature};
use crate::id::CheckId;

/// A documented incompatibility.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Its name; never changes.
    pub id: String,
    /// What happens, in a sentence.
    pub title: String,
    /// Which failing checks it explains.
    checks: Globs,
    /// Layers one of which has to be at fault; none: any.
    #[serde(default)]
    layers: Vec<Layer>,
    /// What the cell has to show, and what its host, engine and image have to be.
    #[serde(default)]
    when: Signature,
    /// What is seen of the check itself, or said by the program it starts.
    text: Option<Patterns>,
    /// No check can fail by it, because what it needs is fine for most: told where its checks pass.
    #[serde(default)]
    recorded: bool,
    /// What the engine says where the cell does not even start.
    fault: Option<Patterns>,
    /// How it shows in the words of programs.
    #[serde(default)]
    pub shows: String,
    /// What mends it.
    pub fix: String,
    /// What helps until then.
    #[serde(default)]
    pub workaround: String,
    /// Where it is documented: `owner/repository#number` on GitHub, or an address.
    pub links: Vec<String>,
}

/// What a report says of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Match {
    /// The entry's name.
    pub id: &'static str,
    /// What happens.
    pub title: &'static str,
    /// How it shows in the words of programs.
    pub shows: &'static str,
    /// What mends it.
    pub fix: &'static str,
    /// What helps until then.
    pub workaround: &'static str,
    /// Addresses.
    pub links: Vec<String>,
}

const FILES: [(&str, &str); 4] = [
    ("filter.toml", include_str!("known/filter.toml")),
    ("machine.toml", include_str!("known/machine.toml")),
    ("limit.toml", include_str!("known/limit.toml")),
    ("surroundings.toml", include_str!("known/surroundings.toml")),
];

fn parse() -> Result<Vec<Known>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Entries {
        known: Vec<Known>,
    }
    let mut all = vec![];
    for (file, text) in FILES {
        let entries: Entries = toml::from_str(text).map_err(|error| format!("{file}: {error}"))?;
        all.extend(entries.known);
    }
    Ok(all)
}

/// Every entry.
pub fn all() -> &'static [Known] {
    static ALL: OnceLock<Vec<Known>> = OnceLock::new();
    // A test parses the files, so a release cannot have a broken one.
    ALL.get_or_init(|| parse().unwrap_or_default())
}

/// The entries that explain failing checks of a cell. `layers` are those its controls leave; none known: any.
pub fn matching<'c>(
    scene: &Scene<'_>,
    checks: impl Iterator<Item = &'c CheckId> + Clone,
    layers: &[Layer],
) -> Vec<Match> {
    let of = |known: &&Known| {
        (known.layers.is_empty()
            || layers.is_empty()
            || known.layers.iter().any(|part| layers.iter().any(|layer| layer.concerns(*part))))
            && known.shows_in(scene, checks.clone())
    };
    all().iter().filter(of).map(Known::told).collect()
}

/// The entries that a cell has although nothing fails by them; `checks` are those that pass in it.
pub fn recorded<'c>(scene: &Scene<'_>, checks: impl Iterator<Item = &'c CheckId> + Clone) -> Vec<Match> {
    let of = |known: &&Known| known.recorded && known.shows_in(scene, checks.clone());
    all().iter().filter(of).map(Known::told).collect()
}

/// The entries whose engine says this where a cell does not even start.
pub fn matching_fault(cause: &str) -> Vec<Match> {
    let says = |known: &&Known| known.fault.as_ref().is_some_and(|patterns| patterns.fits(Some(cause)));
    all().iter().filter(says).map(Known::told).collect()
}

impl Known {
    fn shows_in<'c>(&self, scene: &Scene<'_>, mut checks: impl Iterator<Item = &'c CheckId>) -> bool {
        checks.any(|check| self.explains(check, scene)) && self.when.holds(scene)
    }

    fn explains(&self, check: &CheckId, scene: &Scene<'_>) -> bool {
        let fits = |patterns: &Patterns| {
            patterns.fits(scene.saw(check.as_str()).as_deref())
                || patterns.fits(scene.fact(&format!("cell.{check}.said")))
        };
        // An entry of a fault alone names no check, and no check is not every check.
        !self.checks.is_empty() && self.checks.matches(check) && self.text.as_ref().is_none_or(fits)
    }

    fn told(&'static self) -> Match {
        Match {
            id: &self.id,
            title: &self.title,
            shows: &self.shows,
            fix: &self.fix,
            workaround: &self.workaround,
            links: self.links.iter().map(|link| address(link)).collect(),
        }
    }
}

/// `moby/moby#42680` → its address.
fn address(link: &str) -> String {
    match link.split_once('#') {
        Some((repository, number)) if !link.contains("://") => {
            format!("https://github.com/{repository}/issues/{number}")
        }
        _ => link.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalogue;

    #[test]
    fn entries_parse_have_names_of_their_own_and_ask_for_checks_that_exist() {
        let all = parse().unwrap();
        let mut names: Vec<_> = all.iter().map(|known| &known.id).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
        let rows: Vec<_> = Catalogue::built_in().rows().map(|row| &row.id).collect();
        for known in &all {
            let explains = !known.checks.is_empty() && rows.iter().any(|id| known.checks.matches(id));
            assert!(explains || known.fault.is_some(), "{}: explains nothing", known.id);
            for check in known.when.see.keys() {
                assert!(rows.iter().any(|id| id.as_str() == check), "{}: no check {check}", known.id);
            }
            assert!(!known.links.is_empty() && !known.fix.is_empty(), "{}", known.id);
        }
    }

    #[test]
    fn links_are_addresses() {
        assert_eq!(address("moby/moby#42680"), "https://github.com/moby/moby/issues/42680");
        assert_eq!(address("https://example.org/a#b"), "https://example.org/a#b");
    }
}
