//! What canaries prove, with every runtime under every engine of this machine: a private dockerd with runc, crun and runsc,
//! podman of root and of an ordinary user, the runtimes by themselves, and commands that are none.
//!
//! Root, dockerd, podman, runc, crun, runsc, bubblewrap and systemd-nspawn are needed, and youki where `ABICUS_TEST_YOUKI` is
//! set; what is absent fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod engine_support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use abicus::engine::builtin::BuiltIn;
use abicus::engine::command::{Command, Kind as CommandKind};
use abicus::engine::container::{Endpoint, Kind};
use abicus::engine::{Engine, EngineOptions, Facts, Payload};
use abicus::execute::{materialize, prove};
use abicus::host::{Local, Reach};
use abicus::spec::{EngineKind, EngineSpec};
use engine_support::{Bench, Daemon, options, with_runtime};

struct Place {
    bench: Bench,
    payload: Arc<Payload>,
}

impl Place {
    fn new() -> Self {
        let bench = Bench::new();
        let payload = Arc::new(materialize(&bench.dir().join("cache")).unwrap());
        Self { bench, payload }
    }

    async fn prove(&self, engine: &dyn Engine, kind: EngineKind, runtime: Option<&str>, asked: &str) -> Facts {
        let spec = EngineSpec {
            id: "canary".parse().unwrap(),
            kind,
            runtime: runtime.map(str::to_owned),
            script: None,
            options: options(asked),
            optional: false,
            parallel: None,
        };
        let host = "local".parse().unwrap();
        engine.fingerprint().await.unwrap_or_else(|fault| panic!("{kind} {runtime:?}: {fault:?}"));
        let proof = prove(engine, &spec, &host, &self.payload, &self.bench.run).await;
        proof.unwrap_or_else(|fault| panic!("{kind} {runtime:?}: {fault:?}"))
    }

    fn command(&self, kind: CommandKind, program: &str, asked: &str) -> Command {
        let here: Arc<dyn Reach> = Arc::new(Local::at(self.bench.dir().join("work")));
        let options: EngineOptions = options(asked);
        Command::new(kind, Some(program), &options, here).unwrap()
    }
}

/// The runtime, and nothing ignored but the profile, which gVisor has no use for.
fn assert_proved(name: &str, facts: &Facts) {
    assert_eq!(runtime(facts), name, "{facts:#?}");
    let ignored: Vec<&str> = facts.keys().filter_map(|name| name.strip_prefix("engine.ignored.")).collect();
    match name {
        "runsc" => assert_eq!(ignored, ["seccomp"], "{facts:#?}"),
        _ => assert_eq!(ignored, [""; 0], "{facts:#?}"),
    }
}

const LIMITS: &str = "memory = '96m'\npids_limit = 300\ncpus = 0.5";

fn assert_in_force(facts: &Facts, who: &str) {
    assert!(!facts.keys().any(|name| name.starts_with("engine.ignored.")), "{who}: {facts:#?}");
    // bubblewrap shows the host's control groups, and what a cell gets of a busy machine proves nothing.
    let limits = ["memory", "pids_limit", "cpus"];
    for limit in limits.iter().filter(|limit| **limit != "cpus" || who != "bwrap") {
        assert!(facts.contains_key(&format!("engine.proved.{limit}")), "{who}, {limit}: {facts:#?}");
    }
}

fn runtime(facts: &Facts) -> &str {
    facts.get("engine.proved.runtime").map_or("", String::as_str)
}

/// gVisor brings up a network of its own unless it is told not to.
fn gvisor(dir: &Path) -> String {
    let path = dir.join("runsc");
    std::fs::write(&path, "#!/bin/sh\nexec /usr/bin/runsc --network=none \"$@\"\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn under_docker_each_runtime_and_each_limit_is_proved() {
    let place = Place::new();
    let runsc = format!("--add-runtime runsc={}", gvisor(place.bench.dir()));
    let extra = ["--add-runtime crun=/usr/bin/crun", &runsc, "--storage-driver vfs"];
    let daemon = Daemon::docker(&place.bench.dir().join("docker"), "", &extra);
    let engine =
        |name, asked| with_runtime(Kind::Docker, Endpoint::Unix(daemon.socket.clone()), Some(name), options(asked));
    for name in ["runc", "crun", "runsc"] {
        let facts = place.prove(&engine(name, ""), EngineKind::Docker, Some(name), "").await;
        assert_proved(name, &facts);
    }
    for name in ["runc", "crun"] {
        let facts = place.prove(&engine(name, LIMITS), EngineKind::Docker, Some(name), LIMITS).await;
        assert_in_force(&facts, name);
    }
}

#[tokio::test]
async fn under_podman_of_root_each_runtime_and_each_limit_is_proved() {
    let place = Place::new();
    for (name, extra) in [("runc", &[][..]), ("crun", &[]), ("runsc", &["--runtime-flag", "network=none"])] {
        let arguments = [&["--runtime", name], extra].concat();
        let service = Daemon::podman(&place.bench.dir().join(name), &arguments);
        let endpoint = || Endpoint::Unix(service.socket.clone());
        let engine = with_runtime(Kind::Podman, endpoint(), None, options(""));
        let facts = place.prove(&engine, EngineKind::Podman, Some(name), "").await;
        assert_proved(name, &facts);
        if name != "runsc" {
            let engine = with_runtime(Kind::Podman, endpoint(), None, options(LIMITS));
            assert_in_force(&place.prove(&engine, EngineKind::Podman, Some(name), LIMITS).await, name);
        }
    }
}

#[tokio::test]
async fn what_rootless_podman_takes_and_ignores_is_found_out() {
    let place = Place::new();
    for name in ["crun", "runc"] {
        let service = Daemon::rootless(&place.bench.dir().join(name), name);
        let asked = "memory = '96m'\npids_limit = 300";
        let engine = with_runtime(Kind::Podman, Endpoint::Unix(service.socket.clone()), None, options(asked));
        let facts = place.prove(&engine, EngineKind::Podman, Some(name), asked).await;
        // Whose control groups they are hides who made them read-only.
        assert!(runtime(&facts).starts_with(name), "{facts:#?}");
        if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            continue;
        }
        // Without version 2 nobody delegates control groups to an ordinary user.
        assert_eq!(facts["engine.ignored.memory"], "a cell had 128 MiB", "{facts:#?}");
        assert_eq!(facts["engine.ignored.pids_limit"], "a cell had 316 processes", "{facts:#?}");
    }
}

#[tokio::test]
async fn commands_are_proved_as_daemons_are() {
    let place = Place::new();
    // Youki is built from source for minutes, and `.ci/run` asks for it.
    let youki = std::env::var_os("ABICUS_TEST_YOUKI").map(|_| "youki");
    for name in ["runc", "crun", "runsc"].into_iter().chain(youki) {
        let engine = place.command(CommandKind::Oci, name, "");
        let facts = place.prove(&engine, EngineKind::Oci, Some(name), "").await;
        assert_proved(name, &facts);
    }
    let others = [
        (CommandKind::Bubblewrap, EngineKind::Bubblewrap, "bwrap"),
        (CommandKind::Nspawn, EngineKind::Nspawn, "systemd-nspawn"),
    ];
    let runtimes = ["runc", "crun"].into_iter().chain(youki);
    for (kind, spec, program) in runtimes.map(|name| (CommandKind::Oci, EngineKind::Oci, name)).chain(others) {
        let facts = place.prove(&place.command(kind, program, LIMITS), spec, None, LIMITS).await;
        assert_in_force(&facts, program);
    }
    let here: Arc<dyn Reach> = Arc::new(Local::at(place.bench.dir().join("work")));
    let built_in = BuiltIn::new(&options(LIMITS), here).unwrap();
    assert_in_force(&place.prove(&built_in, EngineKind::BuiltIn, None, LIMITS).await, "built-in");
}

#[tokio::test]
async fn a_runtime_that_runs_another_is_found_out() {
    let place = Place::new();
    let liar = place.bench.dir().join("crun");
    std::fs::write(&liar, "#!/bin/sh\nexec runc \"$@\"\n").unwrap();
    std::fs::set_permissions(&liar, std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = liar.to_str().unwrap();
    let engine = place.command(CommandKind::Oci, program, "");
    let facts = place.prove(&engine, EngineKind::Oci, Some(program), "").await;
    assert_eq!(facts["engine.ignored.runtime"], "`crun` was asked for, and a cell looks like runc's");
}
