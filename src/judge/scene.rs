//! One cell as patterns see it: every observation as a few words, every fact under a name that says whose it is. Patterns of
//! the tables in this room (`mechanism.toml`, `known/`) are globs and comparisons over these texts. Pure.

use std::collections::BTreeMap;

use globset::{Glob, GlobMatcher};
use serde::Deserialize;

use super::learn::version_order;
use super::{errno_name, signal_name};
use crate::collect::{Observation, Observations, Saw};
use crate::engine::Facts;
use crate::id::CheckId;

/// What is known of one cell.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scene<'a> {
    /// What was seen in it; absent where it did not run.
    pub observations: Option<&'a Observations>,
    /// Facts of its host.
    pub host: Option<&'a Facts>,
    /// Facts of its engine.
    pub engine: Option<&'a Facts>,
    /// Facts of its image.
    pub image: Option<&'a Facts>,
    /// Facts read in it.
    pub cell: Option<&'a Facts>,
}

impl<'a> Scene<'a> {
    /// What was seen of a check, in words; see [`words`].
    pub fn saw(&self, check: &str) -> Option<String> {
        let id: CheckId = check.parse().ok()?;
        self.observations?.get(&id).map(words)
    }

    /// A fact: `host.kernel.release`, `engine.version`, `image.libc.version`, `cell.process.label`.
    pub fn fact(&self, name: &str) -> Option<&'a str> {
        let (whose, rest) = name.split_once('.')?;
        let facts = match whose {
            "host" => self.host?.get(rest),
            // Facts of engines carry the word themselves.
            "engine" => self.engine?.get(name),
            "image" => self.image?.get(rest),
            "cell" => self.cell?.get(rest),
            _ => None,
        };
        facts.map(String::as_str)
    }
}

/// An observation in words: `ok`, `errno EPERM by filter`, `errno EINVAL by kernel`, `signal SIGSYS by filter`, `timeout`,
/// `value 64`, `samples`, `not asked`. Who answered is said where the filter was asked.
pub fn words(observation: &Observation) -> String {
    let by = match observation.filter.as_deref() {
        Some("allow" | "log") => " by kernel",
        Some("unknown") | None => "",
        Some(_) => " by filter",
    };
    match &observation.saw {
        Saw::Ok => "ok".to_owned(),
        Saw::Errno { errno } => format!("errno {}{by}", errno_name(*errno)),
        Saw::Signal { signal } => format!("signal {}{by}", signal_name(*signal)),
        Saw::Timeout { .. } => "timeout".to_owned(),
        Saw::Value { value } => format!("value {value}"),
        Saw::Samples { .. } => "samples".to_owned(),
        Saw::NotAsked { .. } => "not asked".to_owned(),
    }
}

/// One text: a glob, a comparison (`<2.34`, `>= 65536`), its negation (`!ok`), or `absent` for what is not there.
#[derive(Debug, Clone)]
pub struct Pattern {
    not: bool,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Absent,
    Glob(GlobMatcher),
    Below(String),
    AtLeast(String),
}

impl std::str::FromStr for Pattern {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (not, rest) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let test = if rest == "absent" {
            Test::Absent
        } else if let Some(bound) = rest.strip_prefix(">=") {
            Test::AtLeast(bound.trim().to_owned())
        } else if let Some(bound) = rest.strip_prefix('<') {
            Test::Below(bound.trim().to_owned())
        } else {
            let glob = Glob::new(rest).map_err(|error| format!("`{rest}`: {}", error.kind()))?;
            Test::Glob(glob.compile_matcher())
        };
        Ok(Self { not, test })
    }
}

impl Pattern {
    /// Whether the text fits. What is not there fits `absent` only.
    pub fn fits(&self, text: Option<&str>) -> bool {
        let Some(text) = text else { return matches!(self.test, Test::Absent) && !self.not };
        let value = text.strip_prefix("value ").unwrap_or(text);
        let fits = match &self.test {
            Test::Absent => false,
            Test::Glob(glob) => glob.is_match(text),
            Test::Below(bound) => version_order(value, bound).is_lt(),
            Test::AtLeast(bound) => version_order(value, bound).is_ge(),
        };
        fits != self.not
    }
}

/// Alternatives: one of them fits.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "OneOrMany")]
pub struct Patterns(Vec<Pattern>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl TryFrom<OneOrMany> for Patterns {
    type Error = String;
    fn try_from(texts: OneOrMany) -> Result<Self, String> {
        let texts = match texts {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        };
        texts.iter().map(|text| text.parse()).collect::<Result<_, _>>().map(Self)
    }
}

impl Patterns {
    /// Whether one of them fits.
    pub fn fits(&self, text: Option<&str>) -> bool {
        self.0.iter().any(|pattern| pattern.fits(text))
    }
}

/// Conditions over one cell; all of them hold.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Signature {
    /// By check: what was seen of it, see [`words`].
    pub see: BTreeMap<String, Patterns>,
    /// By fact, see [`Scene::fact`].
    pub facts: BTreeMap<String, Patterns>,
}

impl Signature {
    /// Whether every condition holds.
    pub fn holds(&self, scene: &Scene<'_>) -> bool {
        let see = self.see.iter().all(|(check, patterns)| patterns.fits(scene.saw(check).as_deref()));
        see && self.facts.iter().all(|(fact, patterns)| patterns.fits(scene.fact(fact)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_globs_comparisons_and_their_negations() {
        let fits = |pattern: &str, text: Option<&str>| pattern.parse::<Pattern>().unwrap().fits(text);
        assert!(fits("errno EPERM*", Some("errno EPERM by filter")));
        assert!(!fits("errno EPERM", Some("errno EPERM by filter")));
        assert!(fits("!ok", Some("timeout")) && !fits("!ok", Some("ok")));
        assert!(fits(">=2.34", Some("2.36")) && !fits(">=2.34", Some("2.4")) && !fits("<2.34", Some("2.34")));
        assert!(fits("<1025", Some("value 1024")) && !fits("<1025", Some("value 1048576")));
        assert!(fits("absent", None) && !fits("absent", Some("")) && fits("!absent", Some("")));
        assert!(!fits("*", None) && !fits(">=1", None));
        // What is not there says nothing, also not that it is not something.
        assert!(!fits("!ok", None) && !fits("!absent", None));
        assert!(!fits("!absent", None));
    }

    #[test]
    fn facts_say_whose_they_are() {
        let facts = |name: &str, value: &str| Facts::from([(name.to_owned(), value.to_owned())]);
        let (host, engine, image) = (facts("arch", "x86_64"), facts("engine.kind", "docker"), facts("arch", "amd64"));
        let scene = Scene { host: Some(&host), engine: Some(&engine), image: Some(&image), ..Scene::default() };
        assert_eq!(scene.fact("host.arch"), Some("x86_64"));
        assert_eq!(scene.fact("image.arch"), Some("amd64"));
        assert_eq!(scene.fact("engine.kind"), Some("docker"));
        assert_eq!(scene.fact("cell.arch"), None);
    }
}
