//! Canaries: small cells of the empty image that prove what an engine says of itself.
//!
//! In: an engine, what the matrix asks of it, the payload. Out: facts: the runtime that really ran
//! (`engine.proved.runtime`), limits that are in force (`engine.proved.memory`…), and what the engine took and does not
//! do (`engine.ignored.…`). What cannot be seen is left out and never guessed. Run once per engine and host.
//!
//! Podman ignores a runtime asked for through its API, and rootless podman ignores limits where control groups of version
//! 1 are; both say nothing. So what counts is what a program in a cell finds.

use std::sync::Arc;
use std::time::Duration;

use crate::collect::{self, Observations, Report, Saw};
use crate::engine::options::Seccomp;
use crate::engine::{Attempt, Ended, Engine, Facts, Job, PAYLOAD_DIR, Payload, Prepared};
use crate::fault::Fault;
use crate::id::{CellId, EngineId, HostId, ImageId, RunId};
use crate::image;
use crate::spec::{EngineKind, EngineSpec};

/// A canary is small; an engine that needs longer is proved by its cells.
const DEADLINE: Duration = Duration::from_secs(60);
const OUTPUT_CAP: usize = 1 << 20;
/// Most memory that is taken to see whether a limit holds.
const MOST_MIB: u64 = 512;
/// Most processes that are started for it.
const MOST_PROCESSES: u64 = 2000;

/// What the canaries of an engine saw, or why there is none; nothing where it has no image to put them in.
pub async fn prove(
    engine: &dyn Engine,
    spec: &EngineSpec,
    host: &HostId,
    payload: &Arc<Payload>,
    run: &RunId,
) -> Result<Facts, Fault> {
    match spec.kind {
        EngineKind::Native | EngineKind::Scripted => return Ok(Facts::new()),
        _ => {}
    }
    let cell = CellId { host: host.clone(), engine: spec.id.clone(), image: ImageId::reserved("control.scratch") };
    Canary { engine, spec, cell, payload, run }.facts().await
}

struct Canary<'a> {
    engine: &'a dyn Engine,
    spec: &'a EngineSpec,
    cell: CellId,
    payload: &'a Arc<Payload>,
    run: &'a RunId,
}

impl Canary<'_> {
    async fn facts(&self) -> Result<Facts, Fault> {
        let image = self.engine.prepare(&image::empty(&self.cell.image)).await?;
        let attempt = self.job(&image, &["surroundings", "--only", "cgroup.", "--only", "lsm.seccomp.mode"]).await;
        let report = collect::parse(&attempt.stdout);
        if let Some(fault) = attempt.ended.err().filter(|_| report.observations.is_empty()) {
            return Err(fault);
        }
        let mut facts = Facts::new();
        if let Some(runtime) = runtime(self.spec.kind, &report) {
            if let Some(said) = contradiction(self.spec, runtime) {
                facts.insert("engine.ignored.runtime".to_owned(), said);
            }
            facts.insert("engine.proved.runtime".to_owned(), runtime.to_owned());
        }
        if let Some(said) = unfiltered(self.spec, &report.observations) {
            facts.insert("engine.ignored.seccomp".to_owned(), said);
        }
        self.limits(&image, &report, &mut facts).await;
        Ok(facts)
    }

    async fn limits(&self, image: &Prepared, report: &Report, facts: &mut Facts) {
        for limit in asked(self.spec) {
            let found = match seen(&report.observations, &limit) {
                Some(true) => Found::InForce("its control group says so".to_owned()),
                _ => self.by_force(image, &limit).await,
            };
            let (what, says) = match found {
                Found::InForce(says) => ("proved", says),
                Found::Ignored(says) => ("ignored", says),
                Found::Unknown => continue,
            };
            facts.insert(format!("engine.{what}.{}", limit.option), says);
        }
    }

    /// Takes more than the limit; what can be had is not limited.
    async fn by_force(&self, image: &Prepared, limit: &Limit) -> Found {
        let (what, amount, unit) = match limit.option {
            "memory" => ("hold", (limit.amount >> 20) + 32, "MiB"),
            "pids_limit" => ("crowd", limit.amount + 16, "processes"),
            _ => return self.cpu(image, limit).await,
        };
        let most = if what == "hold" { MOST_MIB } else { MOST_PROCESSES };
        if amount > most {
            return Found::Unknown;
        }
        let (held, ended) = self.take(image, what, amount).await;
        match (held, ended) {
            (Some(held), _) if held >= amount => Found::Ignored(format!("a cell had {held} {unit}")),
            (Some(held), _) => Found::InForce(format!("a cell had {held} of {amount} {unit}")),
            (None, Ok(Ended::Deadline)) | (None, Err(_)) => Found::Unknown,
            (None, Ok(_)) => Found::InForce(format!("a cell that wants {amount} {unit} is killed")),
        }
    }

    /// How much of something a cell can have, and how that ended.
    async fn take(&self, image: &Prepared, what: &str, amount: u64) -> (Option<u64>, Result<Ended, Fault>) {
        let attempt = self.job(image, &["surroundings", what, &amount.to_string()]).await;
        let text = String::from_utf8_lossy(&attempt.stdout).into_owned();
        (text.trim().strip_prefix("held ").and_then(|n| n.parse().ok()), attempt.ended)
    }

    /// Nobody is killed for wanting too much time, and on a busy machine nobody gets it: only what is clear is said.
    async fn cpu(&self, image: &Prepared, limit: &Limit) -> Found {
        let thousandths = limit.amount / 1_000_000;
        let (Some(had), _) = self.take(image, "burn", thousandths / 1000 + 2).await else { return Found::Unknown };
        let says = format!("a cell had {:.2} CPUs", had as f64 / 1000.0);
        match had * 10 / thousandths.max(1) {
            13.. => Found::Ignored(says),
            8..=11 => Found::InForce(says),
            _ => Found::Unknown,
        }
    }

    async fn job(&self, image: &Prepared, words: &[&str]) -> Attempt {
        let mut argv: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        argv[0] = format!("{PAYLOAD_DIR}/{}", words[0]);
        let job = Job {
            run: self.run.clone(),
            cell: self.cell.clone(),
            attempt: 1,
            argv,
            payload: self.payload.clone(),
            deadline: DEADLINE,
            output_cap: OUTPUT_CAP,
        };
        self.engine.run(&job, image).await
    }
}

/// What came out about one limit.
enum Found {
    InForce(String),
    Ignored(String),
    Unknown,
}

/// A limit the matrix asks for.
struct Limit {
    option: &'static str,
    /// The check that reads it from the control group.
    check: &'static str,
    amount: u64,
    /// What that check says where it is in force: version 2 writes the period behind the quota.
    says: [String; 2],
}

fn asked(spec: &EngineSpec) -> Vec<Limit> {
    let options = &spec.options;
    let limit = |option, check, amount: u64, says: u64| Limit {
        option,
        check,
        amount,
        says: [says.to_string(), format!("{says} 100000")],
    };
    let memory = options.memory.map(|size| limit("memory", "cgroup.memory.max", size.0, size.0));
    let pids = options.pids_limit.and_then(|n| u64::try_from(n).ok());
    let pids = pids.map(|n| limit("pids_limit", "cgroup.pids.max", n, n));
    let cpus = options.cpus.map(|cpus| limit("cpus", "cgroup.cpu.max", cpus.nano, cpus.nano / 10_000));
    [memory, pids, cpus].into_iter().flatten().collect()
}

/// Whether the cell's control group has the limit; None: the cell sees no such group.
fn seen(observations: &Observations, limit: &Limit) -> Option<bool> {
    value(observations, limit.check).map(|value| limit.says.contains(&value))
}

/// Which runtime a cell looks like from inside, where that can be told.
///
/// gVisor says `4.4.0` since it began (pkg/sentry/kernel/version.go). Of a /sys that shall be read-only, runc (1.0 to 1.1)
/// makes the file system read-only, crun (1.8) and youki (0.7) only the mount; and youki leaves the control groups of
/// version 1 writable, which crun does not. Each was seen on its own.
fn runtime(kind: EngineKind, report: &Report) -> Option<&'static str> {
    let facts = &report.facts;
    if !matches!(kind, EngineKind::Docker | EngineKind::Podman | EngineKind::Oci) {
        return None;
    }
    if facts.get("kernel.banner").is_some_and(|banner| banner.starts_with("Linux version 4.4.0 #1 SMP Sun Jan 10")) {
        return Some("runsc");
    }
    let (mount, system) = facts.get("mount.sys")?.split_once(" - sysfs sysfs ")?;
    let read_only = |options: &str| options.split(',').next() == Some("ro");
    match (read_only(mount), read_only(system)) {
        (true, true) => Some("runc"),
        (true, false) => Some(match groups(&report.observations).as_deref() {
            Some("writable") => "youki",
            Some("read-only") => "crun",
            _ => "crun or youki",
        }),
        (false, _) => None,
    }
}

/// Whether the cell's control groups are writable or read-only, where they are of version 1.
fn groups(observations: &Observations) -> Option<String> {
    if value(observations, "cgroup.version")? == "2" {
        return None;
    }
    value(observations, "cgroup.writable")
}

fn value(observations: &Observations, check: &str) -> Option<String> {
    match &observations.iter().find(|(id, _)| id.as_str() == check)?.1.saw {
        Saw::Value { value } => Some(value.to_string()),
        _ => None,
    }
}

/// What to say where a profile was asked for, or is the engine's default, and no filter is in force. youki is built
/// without it unless one asks for it; gVisor loads a profile only where the matrix names one.
fn unfiltered(spec: &EngineSpec, observations: &Observations) -> Option<String> {
    let default = matches!(spec.kind, EngineKind::Docker | EngineKind::Podman | EngineKind::Oci | EngineKind::BuiltIn);
    let wanted = match &spec.options.seccomp {
        Some(Seccomp::Unconfined) => false,
        Some(Seccomp::Docker | Seccomp::Podman | Seccomp::File(_)) => true,
        Some(Seccomp::Default) => default,
        None => default && !spec.options.privileged,
    };
    let mode = value(observations, "lsm.seccomp.mode")?;
    (wanted && mode == "0").then(|| "no filter is in force in a cell".to_owned())
}

/// What to say where another runtime ran than the one asked for. A
/// name of a daemon's own says nothing.
fn contradiction(spec: &EngineSpec, ran: &str) -> Option<String> {
    let asked = spec.runtime.as_deref()?.rsplit('/').next()?;
    let known = ["runc", "crun", "runsc", "youki"].contains(&asked);
    (known && !ran.split(' ').any(|name| name == asked))
        .then(|| format!("`{asked}` was asked for, and a cell looks like {ran}'s"))
}

/// What a run is told of an engine's canaries: one warning for each thing that is ignored.
pub(super) fn warnings(engine: &EngineId, facts: &Facts) -> Vec<String> {
    let ignored = facts.iter().filter_map(|(name, says)| Some((name.strip_prefix("engine.ignored.")?, says)));
    ignored.map(|(option, says)| format!("engine `{engine}` ignores `{option}`: {says}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::bare_engine;

    fn facts(name: &str, text: &str) -> Facts {
        Facts::from([(name.to_owned(), text.to_owned())])
    }

    #[test]
    fn a_runtime_is_told_by_what_a_cell_sees() {
        let report = |name: &str, text: &str| Report { facts: facts(name, text), ..Report::default() };
        let told = |name, text| runtime(EngineKind::Oci, &report(name, text));
        assert_eq!(told("kernel.banner", "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016"), Some("runsc"));
        assert_eq!(told("kernel.banner", "Linux version 4.4.0-21-generic"), None);
        assert_eq!(told("mount.sys", "ro,nosuid - sysfs sysfs ro"), Some("runc"));
        assert_eq!(told("mount.sys", "ro,nosuid - sysfs sysfs rw"), Some("crun or youki"));
        assert_eq!(told("mount.sys", "rw,nosuid - sysfs sysfs rw"), None);
        assert_eq!(runtime(EngineKind::BuiltIn, &report("mount.sys", "ro - sysfs sysfs ro")), None);
    }

    #[test]
    fn only_a_known_name_is_contradicted() {
        let engine =
            |runtime: &str| EngineSpec { runtime: Some(runtime.to_owned()), ..bare_engine("e", EngineKind::Podman) };
        assert!(contradiction(&engine("crun"), "runc").unwrap().contains("`crun`"));
        assert_eq!(contradiction(&engine("/usr/bin/crun"), "crun"), None);
        assert_eq!(contradiction(&engine("youki"), "crun or youki"), None);
        assert!(contradiction(&engine("runc"), "crun or youki").is_some());
        assert_eq!(contradiction(&engine("mine"), "runc"), None);
        assert_eq!(contradiction(&bare_engine("e", EngineKind::Podman), "runc"), None);
    }

    #[test]
    fn a_profile_that_is_not_in_force_is_found_out() {
        let mode = |mode: u8| {
            let text = format!(
                "{{\"abicus\":1,\"probe\":\"p\",\"version\":\"1\",\"arch\":\"x86_64\",\"planned\":1}}\n\
                 {{\"check\":\"lsm.seccomp.mode\",\"saw\":\"value\",\"value\":{mode}}}\n{{\"end\":\"p\",\"reported\":1}}\n"
            );
            collect::parse(text.as_bytes()).observations
        };
        let spec =
            |kind, options: &str| EngineSpec { options: toml::from_str(options).unwrap(), ..bare_engine("e", kind) };
        let said = |kind, options, filter| unfiltered(&spec(kind, options), &mode(filter)).is_some();
        assert!(said(EngineKind::Oci, "", 0) && !said(EngineKind::Oci, "", 2));
        assert!(
            !said(EngineKind::Docker, "seccomp = 'unconfined'", 0) && !said(EngineKind::Docker, "privileged = true", 0)
        );
        assert!(!said(EngineKind::Bubblewrap, "", 0) && said(EngineKind::Bubblewrap, "seccomp = '/p.json'", 0));
    }

    #[test]
    fn a_limit_is_read_in_the_words_of_both_versions() {
        let mut spec = bare_engine("e", EngineKind::Docker);
        spec.options = toml::from_str("memory = '64m'\ncpus = 0.5\npids_limit = -1").unwrap();
        let limits = asked(&spec);
        assert_eq!(limits.iter().map(|limit| limit.option).collect::<Vec<_>>(), ["memory", "cpus"]);
        let line = |check: &str, value: &str| {
            let text = format!(
                "{{\"abicus\":1,\"probe\":\"p\",\"version\":\"1\",\"arch\":\"x86_64\",\"planned\":1}}\n\
                 {{\"check\":\"{check}\",\"saw\":\"value\",\"value\":{value}}}\n{{\"end\":\"p\",\"reported\":1}}\n"
            );
            collect::parse(text.as_bytes()).observations
        };
        assert_eq!(seen(&line("cgroup.memory.max", "67108864"), &limits[0]), Some(true));
        assert_eq!(seen(&line("cgroup.memory.max", "\"max\""), &limits[0]), Some(false));
        assert_eq!(seen(&line("cgroup.cpu.max", "\"50000 100000\""), &limits[1]), Some(true));
        assert_eq!(seen(&line("cgroup.cpu.max", "50000"), &limits[1]), Some(true));
        assert_eq!(seen(&line("cgroup.pids.max", "5"), &limits[0]), None);
    }
}
