//! Applies `deny.toml` to the crates the driver is made of: licences, bans, sources.
//!
//! In: `deny.toml` and what `cargo metadata --locked` says. Out: a failure that names every crate that breaks a rule.
//! The file's format is cargo-deny's, of which this knows a part and refuses the rest, so that a rule that stands there
//! is a rule that is applied. Advisories are not looked at: they need a database from the network.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Policy {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Bans {
    multiple_versions: Deny,
    wildcards: Deny,
    skip: Vec<Entry>,
    deny: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sources {
    #[serde(rename = "unknown-registry")]
    registry: Deny,
    #[serde(rename = "unknown-git")]
    git: Deny,
}

/// The only level that is applied here.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Deny {
    Deny,
}

/// `name` or `name@version`, the version as far as it is given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(rename = "crate")]
    spec: String,
    reason: String,
}

impl Entry {
    fn matches(&self, package: &Package) -> bool {
        let (name, version) = self.spec.split_once('@').unwrap_or((&self.spec, ""));
        let same_so_far = package.version.strip_prefix(version).is_some_and(|rest| {
            version.is_empty() || rest.is_empty() || rest.starts_with('.') || rest.starts_with('-')
        });
        name == package.name && same_so_far
    }
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize, Clone)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    #[serde(default)]
    dependencies: Vec<Requirement>,
}

#[derive(Deserialize, Clone)]
struct Requirement {
    name: String,
    req: String,
    source: Option<String>,
}

/// Whether an SPDX expression can be met with the allowed licences; the error says what could not be read.
///
/// `OR` binds loosest, then `AND`, then `WITH`; the `/` of older crates means `OR`.
fn licence_is_allowed(expression: &str, allow: &BTreeSet<String>) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words: Vec<&str> = spaced.split_whitespace().rev().collect();
    let met = either(&mut words, allow)?;
    match words.pop() {
        None => Ok(met),
        Some(word) => Err(format!("'{word}' is left over in '{expression}'")),
    }
}

fn either(words: &mut Vec<&str>, allow: &BTreeSet<String>) -> Result<bool, String> {
    let mut met = both(words, allow)?;
    while words.last() == Some(&"OR") {
        words.pop();
        met |= both(words, allow)?;
    }
    Ok(met)
}

fn both(words: &mut Vec<&str>, allow: &BTreeSet<String>) -> Result<bool, String> {
    let mut met = one(words, allow)?;
    while words.last() == Some(&"AND") {
        words.pop();
        met &= one(words, allow)?;
    }
    Ok(met)
}

fn one(words: &mut Vec<&str>, allow: &BTreeSet<String>) -> Result<bool, String> {
    match words.pop() {
        Some("(") => {
            let met = either(words, allow)?;
            if words.pop() == Some(")") { Ok(met) } else { Err("a parenthesis is not closed".to_owned()) }
        }
        Some(word) if !["OR", "AND", "WITH", ")"].contains(&word) => {
            let mut licence = word.to_owned();
            if words.last() == Some(&"WITH") {
                words.pop();
                licence = format!("{word} WITH {}", words.pop().unwrap_or_default());
            }
            Ok(allow.contains(&licence))
        }
        other => Err(format!("a licence was due, not '{}'", other.unwrap_or("the end"))),
    }
}

/// Every rule that the packages break, one line each.
fn breaches(policy: &Policy, packages: &[Package]) -> Vec<String> {
    let (Deny::Deny, Deny::Deny, Deny::Deny, Deny::Deny) =
        (&policy.bans.multiple_versions, &policy.bans.wildcards, &policy.sources.registry, &policy.sources.git);
    let mut found = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut registries = BTreeSet::new();
    for package in packages {
        let id = format!("{} {}", package.name, package.version);
        match package.license.as_deref().map(|expression| licence_is_allowed(expression, &policy.licenses.allow)) {
            None => found.push(format!("{id}: names no licence")),
            Some(Err(why)) => found.push(format!("{id}: licence cannot be read: {why}")),
            Some(Ok(false)) => found.push(format!("{id}: licence {:?} is not allowed", package.license)),
            Some(Ok(true)) => {}
        }
        for entry in policy.bans.deny.iter().filter(|entry| entry.matches(package)) {
            found.push(format!("{id}: is banned: {}", entry.reason));
        }
        if !policy.bans.skip.iter().any(|entry| entry.matches(package)) {
            versions.entry(&package.name).or_default().insert(&package.version);
        }
        match &package.source {
            // The workspace itself. What it asks for is ours to choose, so a wildcard is our mistake.
            None => {
                for wildcard in
                    package.dependencies.iter().filter(|wanted| wanted.req == "*" && wanted.source.is_some())
                {
                    found.push(format!("{id}: asks for any version of {}", wildcard.name));
                }
            }
            Some(source) if source.starts_with("registry+") => {
                registries.insert(source.as_str());
            }
            Some(source) => found.push(format!("{id}: comes from {source}, not from the registry")),
        }
    }
    for (name, versions) in versions.iter().filter(|(_, versions)| versions.len() > 1) {
        found.push(format!("{name}: {} versions: {versions:?}", versions.len()));
    }
    // Which registry is cargo's default is cargo's to know: one is right, two are not.
    if registries.len() > 1 {
        found.push(format!("crates come from {} registries: {registries:?}", registries.len()));
    }
    for entry in policy.bans.skip.iter().filter(|entry| !packages.iter().any(|package| entry.matches(package))) {
        found.push(format!("deny.toml: skip of {} matches nothing any more: remove it", entry.spec));
    }
    found
}

fn policy() -> Policy {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml");
    toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn package(name: &str, version: &str, license: &str) -> Package {
    Package {
        name: name.to_owned(),
        version: version.to_owned(),
        license: Some(license.to_owned()),
        source: Some("registry+here".to_owned()),
        dependencies: Vec::new(),
    }
}

/// Crates the policy's own exceptions match, so that only what a test adds is found.
fn healthy() -> Vec<Package> {
    let excepted = [("getrandom", "0.2.17"), ("base64", "0.22.1"), ("syn", "2.0.0")];
    excepted.map(|(name, version)| package(name, version, "MIT OR Apache-2.0")).to_vec()
}

#[test]
fn every_dependency_is_allowed() {
    let policy = policy();
    let mut found = BTreeSet::new();
    for target in &policy.graph.targets {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--locked", "--format-version", "1", "--filter-platform", target])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        let metadata: Metadata = serde_json::from_slice(&output.stdout).unwrap();
        assert!(metadata.packages.len() > 50, "cargo metadata lists only {} crates", metadata.packages.len());
        found.extend(breaches(&policy, &metadata.packages));
    }
    assert!(found.is_empty(), "dependencies break the rules of deny.toml:\n{}", Vec::from_iter(found).join("\n"));
}

#[test]
fn licence_expressions_are_met_only_by_what_is_allowed() {
    let allow = BTreeSet::from(["MIT", "Apache-2.0", "X WITH Y"].map(str::to_owned));
    for (expression, met) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("MIT AND GPL-3.0 OR Apache-2.0", true),
        ("MIT AND (GPL-3.0 OR Apache-2.0)", true),
        ("(MIT OR Apache-2.0) AND GPL-3.0", false),
        ("X", false),
        ("X WITH Y", true),
        ("MIT WITH Y", false),
    ] {
        assert_eq!(licence_is_allowed(expression, &allow), Ok(met), "{expression}");
    }
    for expression in ["", "MIT OR", "(MIT", "MIT MIT", "MIT)", "AND MIT"] {
        assert!(licence_is_allowed(expression, &allow).is_err(), "{expression}");
    }
}

#[test]
fn each_rule_is_broken_by_the_crate_that_breaks_it() {
    let policy = policy();
    assert_eq!(breaches(&policy, &healthy()), Vec::<String>::new());
    let unlicensed = Package { license: None, ..package("a", "1.0.0", "MIT") };
    let from_git = Package { source: Some("git+somewhere".to_owned()), ..package("a", "1.0.0", "MIT") };
    let from_elsewhere = Package { source: Some("registry+elsewhere".to_owned()), ..package("a", "1.0.0", "MIT") };
    let any = Requirement { name: "b".to_owned(), req: "*".to_owned(), source: Some("registry+here".to_owned()) };
    let careless = Package { source: None, dependencies: vec![any], ..package("a", "1.0.0", "MIT") };
    for (added, expected) in [
        (vec![package("a", "1.0.0", "GPL-3.0-only")], "is not allowed"),
        (vec![unlicensed], "names no licence"),
        (vec![package("openssl-sys", "0.9.0", "MIT")], "is banned"),
        (vec![package("a", "1.0.0", "MIT"), package("a", "2.0.0", "MIT")], "2 versions"),
        (vec![from_git], "not from the registry"),
        (vec![from_elsewhere], "2 registries"),
        (vec![careless], "asks for any version of b"),
    ] {
        let found = breaches(&policy, &[healthy(), added].concat());
        assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
    }
    let mut found = healthy();
    found[0].version = "0.20.0".to_owned();
    let found = breaches(&policy, &found);
    assert!(found.len() == 1 && found[0].contains("matches nothing any more"), "{found:?}");
}
