//! Seccomp profiles: from docker's, podman's or the OCI's JSON to a filter program.
//!
//! In: a profile, and what it is resolved against (capabilities, architecture, kernel). Out: rules by system call number,
//! and the BPF program. Pure.

mod bpf;
mod numbers;
mod profile;

pub(crate) use profile::{Profile, ProfileError, Surroundings};

use numbers::Architecture;
use profile::Rule;

/// `profiles/seccomp/default.json` of moby 20.10, Apache-2.0 (see the licence file beside it).
pub(crate) const DOCKER_DEFAULT: &str = include_str!("default.json");

/// `pkg/seccomp/seccomp.json` of containers-common 0.50, which podman 4.3 applies; Apache-2.0 (see the licence file beside it).
pub(crate) const PODMAN_DEFAULT: &str = include_str!("podman.json");

/// Docker's default profile.
pub(crate) fn docker_default() -> Result<Profile, ProfileError> {
    Profile::parse(DOCKER_DEFAULT)
}

/// Podman's default profile.
pub(crate) fn podman_default() -> Result<Profile, ProfileError> {
    Profile::parse(PODMAN_DEFAULT)
}

/// The filter program for a profile: `struct sock_filter` after `struct sock_filter`, in the machine's byte order.
pub(crate) fn compile(profile: &Profile, around: &Surroundings) -> Result<Vec<u8>, ProfileError> {
    let rules = profile.resolve(around)?;
    let tables = Architecture::ALL
        .into_iter()
        .filter(|arch| profile.covers(*arch))
        .map(|arch| (arch, table(arch, &rules, profile)))
        .collect::<Vec<_>>();
    bpf::program(&tables)
}

/// What one architecture's filter does, by ranges of system call numbers: sorted, without gaps, from 0.
pub(crate) struct Table {
    /// First number of each range, and what is done from there on.
    pub(crate) ranges: Vec<(u32, Verdict)>,
}

/// What the filter answers to a system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Tried in order.
    pub(crate) when: Vec<(Vec<profile::Argument>, u32)>,
    /// Where none of them applies: a `SECCOMP_RET_` value.
    pub(crate) otherwise: u32,
}

impl Verdict {
    fn always(answer: u32) -> Self {
        Self { when: vec![], otherwise: answer }
    }
}

const ENOSYS: u32 = 38;

fn table(arch: Architecture, rules: &[Rule], profile: &Profile) -> Table {
    let default = Verdict::always(profile.default_answer());
    let mut calls = std::collections::BTreeMap::<u32, Verdict>::new();
    let mut last = None;
    for rule in rules {
        for number in rule.names.iter().filter_map(|name| arch.number(name)) {
            last = last.max(Some(number));
            // runc skips what says the same as the default, and so a later rule for the same call still counts.
            if rule.answer == default.otherwise {
                continue;
            }
            let verdict = calls.entry(number).or_insert_with(|| default.clone());
            if rule.arguments.is_empty() {
                // The first unconditional rule is the one libseccomp keeps.
                if verdict.otherwise == default.otherwise {
                    verdict.otherwise = rule.answer;
                }
            } else {
                verdict.when.push((rule.arguments.clone(), rule.answer));
            }
        }
    }
    let mut ranges = vec![(0, default.clone())];
    for (number, verdict) in calls {
        push(&mut ranges, number, verdict);
        push(&mut ranges, number + 1, default.clone());
    }
    // As runc does: a call newer than anything the profile knows is absent, not forbidden, so that libc falls back.
    // https://github.com/opencontainers/runc/pull/2750
    if let Some(last) = last.filter(|_| profile.default_refuses()) {
        push(&mut ranges, last + 1, Verdict::always(profile::errno(ENOSYS)));
    }
    Table { ranges }
}

/// Adds a range, replacing one that starts at the same number and joining one that says the same.
fn push(ranges: &mut Vec<(u32, Verdict)>, from: u32, verdict: Verdict) {
    if ranges.last().is_some_and(|(start, _)| *start == from) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|(_, before)| *before != verdict) {
        ranges.push((from, verdict));
    }
}

#[cfg(test)]
mod tests;
