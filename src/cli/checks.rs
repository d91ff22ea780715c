//! `abicus checks`: the catalogue.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Error, Exit, Format, print, print_json, table};
use crate::catalog::{Catalogue, Check, Contract, Requirement};
use crate::judge::profile::{self, Change};

/// List the checks, or explain one
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  abicus checks
  abicus checks syscall.clone3
  abicus checks 'cpu.*' --format json
  abicus checks --requirement must")]
pub(super) struct Arguments {
    /// Only ids that match this glob; one id alone is explained
    #[arg(value_name = "GLOB")]
    check: Option<String>,
    /// Only checks required this much
    #[arg(long)]
    requirement: Option<Requirement>,
    /// The matrix whose profile counts [default: matrix.toml, where there is one]
    #[arg(long, value_name = "FILE")]
    matrix: Option<PathBuf>,
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

pub(super) fn run(arguments: Arguments) -> Result<Exit, Error> {
    let (catalogue, changes, profile) = profiled(arguments.matrix.as_deref())?;
    let pattern = arguments.check.as_deref().unwrap_or("*");
    let glob = globset::Glob::new(pattern)
        .map_err(|error| {
            Error::usage(format!("`{pattern}` is not a glob: {}", error.kind()), "for instance 'syscall.*'")
        })?
        .compile_matcher();
    let fits = |check: &&Check| {
        glob.is_match(check.id.as_str()) && arguments.requirement.is_none_or(|wanted| check.requirement == wanted)
    };
    let checks: Vec<&Check> = catalogue.rows().filter(fits).collect();
    if checks.is_empty() {
        let near = catalogue
            .rows()
            .map(|check| (strsim::jaro_winkler(pattern, check.id.as_str()), check.id.as_str()))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map_or("", |(_, id)| id);
        return Err(Error::usage(format!("no check `{pattern}`"), format!("did you mean `{near}`?")));
    }
    if arguments.format == Format::Json {
        print_json(&checks)?;
    } else if let [check] = checks[..]
        && arguments.check.is_some()
    {
        let change = changes.iter().find(|change| change.check == check.id);
        let changed = change.map(|c| format!("{}, changed by profile {profile}: {}", word(c.from), c.reason));
        print(&explain(check, &changed.map(|text| format!("otherwise {text}")).unwrap_or_default()))?;
    } else {
        let mut rows = table(&["check", "requirement", "contract", "what it asks"]);
        for check in &checks {
            let (requirement, contract) = (word(check.requirement), contract(check.contract));
            rows.add_row([check.id.as_str(), requirement, contract, check.title.as_str()]);
        }
        let shown = changes.iter().filter(|change| checks.iter().any(|check| check.id == change.check)).count();
        let told = if shown > 0 { format!(", {shown} with a requirement of profile {profile}") } else { String::new() };
        print(&format!("{rows}\n{} checks{told}\n", checks.len()))?;
    }
    Ok(Exit::Expected)
}

/// The catalogue with a matrix's profile, what that changes, and the profile's name.
fn profiled(matrix: Option<&Path>) -> Result<(Catalogue, Vec<Change>, String), Error> {
    let default = Path::new("matrix.toml");
    let Some(path) = matrix.or(default.exists().then_some(default)) else {
        return Ok((Catalogue::built_in().clone(), vec![], String::new()));
    };
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let terms = crate::spec::terms(&text, &path.display().to_string())?;
    let (catalogue, changes) = profile::apply(Catalogue::built_in(), &terms.profile);
    Ok((catalogue, changes, terms.profile.name))
}

fn explain(check: &Check, changed: &str) -> String {
    let mut out = format!("{}: {}\n\n", check.id, check.title);
    let passes = match check.contract {
        Contract::Works => "it works",
        Contract::Fallback => "it works or is honestly absent (ENOSYS)",
        Contract::Reach => "the kernel is reached, whatever it answers, or the call is honestly absent (ENOSYS)",
        Contract::Value => "the value is as expected",
        Contract::Record => "anything was seen: it is recorded and compared",
    };
    let mut line = |name: &str, text: &str| {
        if !text.is_empty() {
            let _ = writeln!(out, "{name:<13}{text}");
        }
    };
    line("passes when", passes);
    line("or says", &check.allow.join(", "));
    line("expects", &check.expect.join(" | "));
    line("at least", &check.min.map(|min| min.to_string()).unwrap_or_default());
    line("at most", &check.max.map(|max| max.to_string()).unwrap_or_default());
    line("requirement", word(check.requirement));
    line("", changed);
    line("since", check.since.as_deref().unwrap_or_default());
    line("asked on", &check.arch.join(", "));
    line("breaks", &check.breaks);
    line("remedy", check.remedy.as_deref().unwrap_or_default());
    line("side effect", check.effect.as_deref().unwrap_or_default());
    line("natively", check.native.as_deref().unwrap_or_default());
    line("one-sided", check.one_sided.as_deref().unwrap_or_default());
    line("reference", &check.reference);
    out
}

fn word(requirement: Requirement) -> &'static str {
    match requirement {
        Requirement::Must => "must",
        Requirement::Should => "should",
        Requirement::May => "may",
    }
}

fn contract(contract: Contract) -> &'static str {
    match contract {
        Contract::Works => "works",
        Contract::Fallback => "fallback",
        Contract::Reach => "reach",
        Contract::Value => "value",
        Contract::Record => "record",
    }
}
