//! A made-up run that looks like a real one: hosts of different age, engines of different strictness, images of different
//! libc, and planted causes. Deterministic: the same size gives the same run.

use std::collections::BTreeMap;
use std::sync::Arc;

use abicus::catalog::Catalogue;
use abicus::collect::{Observation, Observations, ProbeReport, Saw, Value};
use abicus::engine::{Ended, Facts, Timing};
use abicus::fault::{Fault, Phase};
use abicus::id::{CellId, ImageId};
use abicus::image::EMPTY_DIGEST;
use abicus::plan::{ControlNames, Role};
use abicus::store::{AttemptRecord, CellRecord, Known, Run, RunInfo, State};

/// Rows a synthetic run needs whatever the built-in catalogue has.
pub const ROWS: &str = include_str!("synthetic.toml");

/// How large a run is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub hosts: usize,
    pub engines: usize,
    pub images: usize,
    /// Checks beside those with planted causes; all pass nearly everywhere.
    pub fillers: usize,
    /// One cell in so many has a result of its own; 0: none.
    pub noise: usize,
}

impl Size {
    pub const SMALL: Self = Self { hosts: 3, engines: 4, images: 8, fillers: 0, noise: 0 };
    pub const TINY: Self = Self { hosts: 3, engines: 2, images: 3, fillers: 0, noise: 0 };
    pub const LARGE: Self = Self { hosts: 1000, engines: 3, images: 30, fillers: 760, noise: 16 };
}

const KERNELS: [(&str, &str, &str); 6] = [
    ("4.19.0-27-amd64", "debian", "10"),
    ("5.10.0-33-amd64", "debian", "11"),
    ("5.15.0-122-generic", "ubuntu", "22.04"),
    ("6.1.0-44-amd64", "debian", "12"),
    ("6.8.0-45-generic", "ubuntu", "24.04"),
    ("6.12.48-amd64", "debian", "13"),
];
const ENGINES: [(&str, &str, &str); 4] = [
    ("built-in", "built-in", "0.1.0"),
    ("docker", "docker", "20.10.5"),
    ("docker-unconfined", "docker", "20.10.5"),
    ("podman", "podman", "4.3.1"),
];
const IMAGES: [(&str, &str, &str, &str, &str); 8] = [
    ("scratch", "", "", "", ""),
    ("debian-8", "glibc", "2.19", "debian", "8"),
    ("debian-10", "glibc", "2.28", "debian", "10"),
    ("debian-11", "glibc", "2.31", "debian", "11"),
    ("debian-12", "glibc", "2.36", "debian", "12"),
    ("debian-13", "glibc", "2.41", "debian", "13"),
    ("alpine-3.13", "musl", "1.2.2", "alpine", "3.13"),
    ("alpine-3.20", "musl", "1.2.5", "alpine", "3.20"),
];

/// The catalogue a synthetic run is judged with: its own rows and the fillers.
pub fn catalogue(size: Size) -> Catalogue {
    let mut fillers = String::new();
    for filler in 0..size.fillers {
        fillers += &format!(
            "[[check]]\nid = \"filler.c{filler}\"\ntitle = \"question {filler}\"\ncontract = \"works\"\nrequirement = \"{}\"\n\
             reference = \"none(7)\"\nbreaks = \"nothing that exists, number {filler}\"\n",
            ["may", "should", "must"][filler % 3]
        );
    }
    Catalogue::parse([("synthetic.toml", ROWS), ("fillers.toml", fillers.as_str())]).unwrap()
}

fn known(pairs: &[(&str, &str)]) -> Known {
    Known { facts: facts(pairs), fault: None }
}

fn facts(pairs: &[(&str, &str)]) -> Facts {
    pairs.iter().filter(|(_, value)| !value.is_empty()).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// The names of the axes, repeated with numbers where more are wanted than there are.
fn name(base: &str, index: usize, of: usize) -> String {
    if index < of { base.to_owned() } else { format!("{base}.{}", index / of) }
}

/// Makes the run.
pub fn run(size: Size) -> Run {
    let host_name = |h: usize| match h {
        0 => "local".to_owned(),
        h => format!("rack{h}"),
    };
    let kernel = |h: usize| KERNELS[if size.hosts <= 3 { [3, 1, 5][h % 3] } else { h * 7 % KERNELS.len() }];
    let mut run = Run {
        info: RunInfo {
            format: 1,
            id: "01JD0000000000000000000000".parse().unwrap(),
            name: "nightly".into(),
            abicus: "0.1.0".into(),
            payload: "5f1e0c1de9a24f4b".into(),
            started: "2026-11-23T02:00:00Z".parse().unwrap(),
            finished: Some("2026-11-23T02:03:41Z".parse().unwrap()),
            interrupted: false,
            matrix_file: "matrix.toml".into(),
            bench: false,
            parallel: None,
            matrix: "[matrix]\nname = \"nightly\"\n".into(),
            cells: vec![],
            controls: Some(ControlNames {
                native: "native".parse().unwrap(),
                no_policy: "control.no-policy".parse().unwrap(),
                scratch: "scratch".parse().unwrap(),
            }),
            selected: false,
            skips: vec![],
        },
        hosts: BTreeMap::new(),
        engines: BTreeMap::new(),
        images: BTreeMap::new(),
        cells: BTreeMap::new(),
        vectors: BTreeMap::new(),
    };
    for h in 0..size.hosts {
        let (release, os, version) = kernel(h);
        let host = host_name(h).parse().unwrap();
        run.hosts.insert(
            host,
            known(&[
                ("kernel.release", release),
                ("kernel.machine", "x86_64"),
                ("os.id", os),
                ("os.version", version),
                ("os.name", &format!("{os} {version}")),
                ("cpu.model", if h % 5 == 4 { "Intel Xeon E5-2670" } else { "AMD EPYC 7B13" }),
                ("cpu.count", "8"),
                ("kernel.cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro quiet"),
            ]),
        );
        for e in 0..size.engines {
            let (engine, kind, version) = ENGINES[e % ENGINES.len()];
            let id = name(engine, e, ENGINES.len()).parse().unwrap();
            let runtime = if kind == "built-in" { "" } else { "runc" };
            let pairs = [("kind", kind), ("version", version), ("runtime", runtime), ("runtime.version", "1.1.5")];
            let mut engine = known(&pairs);
            if size.hosts == 3 && h == 2 && kind == "podman" {
                engine.fault = Some(Fault::new(Phase::Engine, "/run/podman/podman.sock: no such file or directory"));
            }
            run.engines.insert((host_name(h).parse().unwrap(), id), engine);
        }
        run.engines.insert((host_name(h).parse().unwrap(), "native".parse().unwrap()), known(&[("kind", "native")]));
    }
    for i in 0..size.images {
        let (image, kind, version, os, os_version) = IMAGES[i % IMAGES.len()];
        let pairs = [
            ("digest", &*if i == 0 { EMPTY_DIGEST.to_owned() } else { format!("sha256:{i:064x}") }),
            ("libc.kind", kind),
            ("libc.version", version),
            ("os.id", os),
            ("os.version", os_version),
            ("os.name", &format!("{os} {os_version}")),
            ("arch", "amd64"),
            ("created", "2026-01-01T00:00:00Z"),
        ];
        run.images.insert(name(image, i, IMAGES.len()).parse().unwrap(), known(&pairs));
    }
    let mut number = 0;
    for h in 0..size.hosts {
        let native = cell(&host_name(h), "native", "-");
        add(&mut run, size, native, Role::Cell, (h, None, None), kernel(h).0, &mut number);
        for e in 0..size.engines {
            for i in 0..size.images {
                let id = cell(
                    &host_name(h),
                    &name(ENGINES[e % ENGINES.len()].0, e, ENGINES.len()),
                    &name(IMAGES[i % IMAGES.len()].0, i, IMAGES.len()),
                );
                add(&mut run, size, id, Role::Cell, (h, Some(e), Some(i)), kernel(h).0, &mut number);
            }
        }
        for i in 0..size.images {
            let image = name(IMAGES[i % IMAGES.len()].0, i, IMAGES.len());
            if size.hosts <= 3 {
                let id = cell(&host_name(h), "control.no-policy", &image);
                add(&mut run, size, id, Role::ControlNoPolicy, (h, Some(2), Some(i)), kernel(h).0, &mut number);
            }
        }
    }
    if size.hosts == 3 {
        let id = cell("rack1", "podman", "alpine-3.20");
        run.cells.remove(&id);
        run.info.cells.retain(|(cell, _)| *cell != id);
        run.info.skips.push((id, "excluded: no podman on that disk for alpine".into()));
        run.cells.remove(&cell("rack1", "podman", "debian-8"));
    }
    run
}

fn cell(host: &str, engine: &str, image: &str) -> CellId {
    let image = if image == "-" { ImageId::none() } else { image.parse().unwrap() };
    CellId { host: host.parse().unwrap(), engine: engine.parse().unwrap(), image }
}

type At = (usize, Option<usize>, Option<usize>);

fn add(run: &mut Run, size: Size, id: CellId, role: Role, at: At, release: &str, number: &mut usize) {
    *number += 1;
    run.info.cells.push((id.clone(), role));
    let timing =
        Timing { create_ms: 40 + (*number as u64 * 7) % 60, run_ms: 300 + (*number as u64 * 13) % 200, remove_ms: 30 };
    let attempt = |fault: Option<Fault>| AttemptRecord {
        attempt: 1,
        ended: fault.is_none().then_some(Ended::Exit(0)),
        fault,
        timing,
        notes: vec![],
        evidence: format!("{}/{}/{}.1", id.host, id.engine, id.image),
    };
    let engine_fault = run.engines.get(&(id.host.clone(), id.engine.clone())).and_then(|known| known.fault.clone());
    let state = if let Some(fault) = engine_fault {
        let fault = fault.hint("start it: systemctl start podman.socket");
        (State::Broken { fault }, vec![])
    } else if size.hosts == 3 && id.to_string() == "rack1:docker:debian-13" {
        let fault = Fault::new(Phase::Create, "no space left on device: /var/lib/docker/overlay2")
            .hint("free some space: docker system prune");
        (State::Broken { fault: fault.clone() }, vec![attempt(Some(fault.clone())), attempt(Some(fault))])
    } else {
        let observations = observations(size, at, release, *number);
        let bytes = serde_json::to_vec(&observations).unwrap();
        let vector = blake3::hash(&bytes).to_hex()[..32].to_owned();
        let reported = observations.len();
        run.vectors.entry(vector.clone()).or_insert_with(|| Arc::new(observations));
        let probe = ProbeReport {
            probe: "kernel".parse().unwrap(),
            version: "0.1.0".into(),
            planned: reported,
            reported,
            complete: true,
        };
        let pid = number.to_string();
        let facts = facts(&[("process.pid", &pid), ("uts.nodename", &format!("c{pid}")), ("kernel.release", release)]);
        (State::Ran { vector, probes: vec![probe], facts, faults: vec![] }, vec![attempt(None)])
    };
    run.cells.insert(id.clone(), CellRecord { cell: id, role, state: state.0, attempts: state.1 });
}

fn observations(size: Size, (_, engine, image): At, release: &str, number: usize) -> Observations {
    let engine = engine.map(|engine| ENGINES[engine % ENGINES.len()].0);
    let (_, libc, libc_version, _, _) =
        image.map_or(("", "glibc", "2.36", "", ""), |image| IMAGES[image % IMAGES.len()]);
    let minor: u32 = libc_version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0);
    let old_kernel = release.starts_with("4.") || release.starts_with("5.10");
    let filtered = engine == Some("docker");
    let scratch = image.is_some() && libc.is_empty();
    let ok = || seen(Saw::Ok, None);
    let errno = |errno, filter: Option<&str>| seen(Saw::Errno { errno }, filter);
    let mut all = Observations::new();
    let mut put = |id: &str, observation: Observation| {
        all.insert(id.parse().unwrap(), observation);
    };
    for id in ["syscall.read", "syscall.futex", "syscall.openat", "syscall.statx", "dev.null.discard", "proc.self.maps"]
    {
        put(id, if id.starts_with("syscall") { seen(Saw::Ok, Some("allow")) } else { ok() });
    }
    put("syscall.clone3", if filtered { errno(1, Some("errno 1")) } else { errno(22, Some("allow")) });
    put("syscall.faccessat2", if filtered { errno(1, Some("errno 1")) } else { errno(14, Some("allow")) });
    for id in ["syscall.keyctl", "syscall.add_key", "syscall.request_key"] {
        let refused = engine.is_some_and(|engine| engine == "docker" || engine == "podman");
        put(id, if refused { errno(1, Some("errno 1")) } else { errno(22, Some("allow")) });
    }
    put("syscall.futex_waitv", if old_kernel { errno(38, Some("allow")) } else { errno(22, Some("allow")) });
    put("syscall.landlock_create_ruleset", if old_kernel { errno(38, None) } else { ok() });
    put("kernel.cgroup.v2", if release.starts_with("4.") { errno(2, None) } else { ok() });
    put(
        "proc.sys.readonly",
        match engine {
            Some("docker" | "podman") => seen(Saw::Errno { errno: 30 }, None),
            _ => ok(),
        },
    );
    put(
        "dev.shm.size",
        match engine {
            Some("docker" | "podman" | "docker-unconfined") => seen(Saw::Value { value: Value::Integer(64) }, None),
            _ => seen(Saw::Value { value: Value::Integer(16_000) }, None),
        },
    );
    put(
        "cpu.avx2.execute",
        if number % 5 == 4 && size.noise > 0 { seen(Saw::Signal { signal: 4 }, None) } else { ok() },
    );
    if engine.is_some() && engine != Some("built-in") {
        put("net.loopback.up", ok());
    } else {
        put("net.loopback.up", seen(Saw::NotAsked { why: "the cell shares the network of the host".into() }, None));
    }
    if !scratch {
        put("libc.version", seen(Saw::Value { value: Value::Text(libc_version.into()) }, None));
        put("libc.kind", seen(Saw::Value { value: Value::Text(libc.into()) }, None));
        let threads_broken = filtered && libc == "glibc" && minor >= 34;
        put(
            "libc.thread.create",
            if threads_broken {
                Observation { saw: Saw::Errno { errno: 1 }, step: Some("pthread_create".into()), filter: None }
            } else {
                ok()
            },
        );
        put(
            "libc.name.localhost.thread",
            if threads_broken {
                Observation { saw: Saw::Timeout { ms: 3000 }, step: Some("getaddrinfo".into()), filter: None }
            } else {
                ok()
            },
        );
        put("libc.access.effective", if filtered && (libc == "musl" || minor >= 33) { errno(1, None) } else { ok() });
        put(
            "libc.iconv.utf16",
            if libc == "musl" { seen(Saw::Value { value: Value::Text("no such charset".into()) }, None) } else { ok() },
        );
    }
    for filler in 0..size.fillers {
        let odd = size.noise > 0 && number.is_multiple_of(size.noise) && filler == number / size.noise % size.fillers;
        let planted =
            filler % 97 == 0 && old_kernel || filler % 61 == 0 && filtered || filler % 53 == 0 && libc == "musl";
        put(&format!("filler.c{filler}"), if odd || planted { errno(1, None) } else { ok() });
    }
    all
}

fn seen(saw: Saw, filter: Option<&str>) -> Observation {
    Observation { saw, step: None, filter: filter.map(str::to_owned) }
}

/// Text that wants to be markup, a script, a formula, a terminal sequence, or the end of what surrounds it.
pub const HOSTILE: &str = "=cmd|'/c calc'!A1</script><img src=x onerror=document.hacked=1><b data-x>\"'`|{{7*7}}]]>&amp;\u{1b}[31m\u{202e}\r\n\t=1,\"x";

/// Puts hostile text into every place a host, an engine, an image or a probe can fill.
pub fn poison(run: &mut Run) {
    let fault = Fault { phase: Phase::Engine, cause: HOSTILE.into(), hint: Some(HOSTILE.into()), transient: false };
    run.info.name = HOSTILE.into();
    run.info.matrix = HOSTILE.into();
    run.info.matrix_file = HOSTILE.into();
    run.info.abicus = HOSTILE.into();
    run.info.payload = HOSTILE.into();
    for (_, reason) in &mut run.info.skips {
        *reason = HOSTILE.into();
    }
    for known in run.hosts.values_mut().chain(run.engines.values_mut()).chain(run.images.values_mut()) {
        for value in known.facts.values_mut() {
            *value = format!("{HOSTILE}{value}");
        }
        known.facts.insert(HOSTILE.into(), HOSTILE.into());
        if known.fault.is_some() {
            known.fault = Some(fault.clone());
        }
    }
    let mut vectors = BTreeMap::new();
    for (digest, observations) in &run.vectors {
        let mut observations = (**observations).clone();
        for observation in observations.values_mut() {
            observation.step = Some(HOSTILE.into());
            observation.filter = Some(HOSTILE.into());
        }
        let why = Observation { saw: Saw::NotAsked { why: HOSTILE.into() }, step: None, filter: None };
        observations.insert("hostile.why".parse().unwrap(), why);
        let value = Saw::Value { value: Value::Text(HOSTILE.into()) };
        observations.insert("hostile.value".parse().unwrap(), seen(value, None));
        let samples = Saw::Samples { unit: HOSTILE.into(), samples: vec![1.0] };
        observations.insert("hostile.samples".parse().unwrap(), seen(samples, None));
        vectors.insert(digest.clone(), Arc::new(observations));
    }
    run.vectors = vectors;
    for record in run.cells.values_mut() {
        match &mut record.state {
            State::Skipped { reason } => *reason = HOSTILE.into(),
            State::Broken { fault: known } => *known = fault.clone(),
            State::Ran { facts, faults, .. } => {
                facts.insert(HOSTILE.into(), HOSTILE.into());
                if record.cell.host.as_str() == "rack1" {
                    faults.push(fault.clone());
                }
            }
        }
        for attempt in &mut record.attempts {
            attempt.notes = vec![HOSTILE.into()];
            attempt.evidence = HOSTILE.into();
            attempt.fault = Some(fault.clone());
        }
    }
}
