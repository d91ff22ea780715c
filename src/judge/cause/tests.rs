use super::*;

/// Two engines, three images, every control, on one host: the clone3 story.
struct Story {
    cells: Vec<(CellId, Role)>,
    engines: BTreeMap<&'static str, Facts>,
    images: BTreeMap<&'static str, Facts>,
    names: ControlNames,
}

fn facts(pairs: &[(&str, &str)]) -> Facts {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn story() -> Story {
    let mut cells: Vec<(CellId, Role)> = vec![("h:native:-".parse().unwrap(), Role::ControlNative)];
    for engine in ["docker", "podman", "bare"] {
        for image in ["old", "new", "empty"] {
            let role = match (engine, image) {
                ("bare", _) => Role::ControlNoPolicy,
                (_, "empty") => Role::ControlScratch,
                _ => Role::Cell,
            };
            cells.push((format!("h:{engine}:{image}").parse().unwrap(), role));
        }
    }
    Story {
        cells,
        engines: [
            ("docker", facts(&[("engine.kind", "docker"), ("engine.version", "20.10.5")])),
            ("podman", facts(&[("engine.kind", "podman"), ("engine.version", "4.3.1")])),
        ]
        .into(),
        images: [
            ("old", facts(&[("libc.kind", "glibc"), ("libc.version", "2.31")])),
            ("new", facts(&[("libc.kind", "glibc"), ("libc.version", "2.41")])),
        ]
        .into(),
        names: ControlNames {
            native: "native".parse().unwrap(),
            no_policy: "bare".parse().unwrap(),
            scratch: "empty".parse().unwrap(),
        },
    }
}

fn cause(fails: impl Fn(&str) -> Option<bool>) -> Cause {
    let story = story();
    let subjects = story.cells.iter().map(|(cell, role)| Subject {
        cell,
        role: *role,
        ran: true,
        host: None,
        engine: story.engines.get(cell.engine.as_str()),
        image: story.images.get(cell.image.as_str()),
    });
    let causes = Causes::new(subjects.collect(), Some(&story.names));
    let fails: Vec<Option<bool>> = story.cells.iter().map(|(cell, _)| fails(&cell.to_string())).collect();
    causes.of(&fails)
}

#[test]
fn a_new_libc_under_an_old_profile_is_an_interaction() {
    let cause = cause(|cell| Some(cell == "h:docker:new"));
    assert_eq!(cause.layers, [Layer::EngineImage]);
    let condition = cause.condition.unwrap();
    assert_eq!(condition.split(" & ").count(), 2, "{condition}");
    assert!(condition.contains("docker") || condition.contains("engine.version"), "{condition}");
}

#[test]
fn what_the_empty_image_shows_too_is_the_engines() {
    let cause = cause(|cell| Some(cell.starts_with("h:docker:")));
    assert_eq!(cause.layers, [Layer::Engine]);
    assert_eq!(cause.condition.as_deref(), Some("engine.kind=docker"));
}

#[test]
fn what_fails_natively_and_everywhere_is_the_hosts() {
    let cause = cause(|_| Some(true));
    assert_eq!(cause.layers, [Layer::Host]);
    assert_eq!(cause.condition.as_deref(), Some("always"));
}

#[test]
fn what_fails_without_policy_too_is_the_images() {
    let cause = cause(|cell| Some(cell.ends_with(":new")));
    assert_eq!(cause.layers, [Layer::Image]);
}

#[test]
fn what_the_empty_image_cannot_be_asked_is_decided_by_other_images() {
    let asked = |cell: &str| !cell.ends_with(":empty");
    let both = cause(|cell| asked(cell).then(|| cell.starts_with("h:docker:")));
    assert_eq!(both.layers, [Layer::Engine, Layer::EngineImage], "one other image proves nothing");
    let one = cause(|cell| asked(cell).then_some(cell == "h:docker:new"));
    assert_eq!(one.layers, [Layer::EngineImage]);
}

#[test]
fn an_image_that_passes_under_another_engine_is_not_blamed_by_itself() {
    let cause = cause(|cell| Some(cell.starts_with("h:docker:") && !cell.ends_with(":empty") || cell == "h:bare:new"));
    assert_eq!(cause.layers, [Layer::EngineImage]);
}

#[test]
fn without_controls_the_claim_is_weaker_and_says_what_is_missing() {
    let cause = cause(|cell| match cell {
        "h:docker:new" => Some(true),
        "h:docker:old" => Some(false),
        _ => None,
    });
    assert_eq!(cause.layers, [Layer::Image, Layer::EngineImage]);
    assert!(cause.missing.contains(&"native".to_owned()), "{cause:?}");
}

#[test]
fn what_the_user_asked_for_is_an_experiment_too() {
    let cause = cause(|cell| match cell {
        "h:docker:new" => Some(true),
        "h:docker:old" | "h:podman:new" | "h:podman:old" => Some(false),
        _ => None,
    });
    assert_eq!(cause.layers, [Layer::EngineImage], "the engine is fine with another image, and the image elsewhere");
}

/// Two kinds of hosts, two of each, two images, one engine: which cells fail, by `kernel:image`; controls answer alike.
fn fleet(fails: impl Fn(&str, &str, &str) -> Option<bool>) -> Vec<Vec<Layer>> {
    let hosts = [("a1", "4.19"), ("a2", "4.19"), ("b1", "6.12"), ("b2", "6.12")];
    let kernels: BTreeMap<&str, Facts> =
        hosts.iter().map(|(host, kernel)| (*host, facts(&[("kernel.release", kernel)]))).collect();
    let story = story();
    let engine = |name: &str| facts(&[("engine.kind", name), ("engine.version", "1")]);
    let engines: BTreeMap<&str, Facts> = ["native", "docker", "podman", "bare"].map(|name| (name, engine(name))).into();
    let cells: Vec<(CellId, Role)> = hosts
        .iter()
        .flat_map(|(host, _)| {
            story.cells.iter().map(move |(cell, role)| (CellId { host: host.parse().unwrap(), ..cell.clone() }, *role))
        })
        .collect();
    let subjects = cells.iter().map(|(cell, role)| Subject {
        cell,
        role: *role,
        ran: true,
        host: kernels.get(cell.host.as_str()),
        engine: engines.get(cell.engine.as_str()),
        image: story.images.get(cell.image.as_str()),
    });
    let causes = Causes::new(subjects.collect(), Some(&story.names));
    let answers: Vec<Option<bool>> = cells
        .iter()
        .map(|(cell, _)| {
            fails(&kernels[cell.host.as_str()]["kernel.release"], cell.engine.as_str(), cell.image.as_str())
        })
        .collect();
    let failing = (0..cells.len()).filter(|&at| answers[at] == Some(true) && !cells[at].1.is_control());
    let mut layers: Vec<Vec<Layer>> = failing.map(|at| causes.blame(at, &answers).layers).collect();
    layers.dedup();
    layers
}

#[test]
fn a_new_libc_on_an_old_kernel_is_the_hosts_and_the_images() {
    let asked = |image: &str| image != "empty";
    let new_on_old = |kernel: &str, _: &str, image: &str| asked(image).then_some(kernel == "4.19" && image == "new");
    assert_eq!(fleet(new_on_old), [[Layer::HostImage]]);
    // Nearly: the image fails on the new kernel too, so it is its own.
    assert_eq!(fleet(|_, _, image| asked(image).then_some(image == "new")), [[Layer::Image]]);
    // Nearly: every image fails on the old kernel, and natively, so it is the host's.
    assert_eq!(fleet(|kernel, _, _| Some(kernel == "4.19")), [[Layer::Host]]);
}

#[test]
fn a_runtime_on_hosts_it_does_not_know_is_the_hosts_and_the_engines() {
    let docker_on_new = |kernel: &str, engine: &str, _: &str| Some(kernel == "6.12" && engine == "docker");
    assert_eq!(fleet(docker_on_new), [[Layer::HostEngine]]);
    // Nearly: it fails under this engine on every host.
    assert_eq!(fleet(|_, engine, _| Some(engine == "docker")), [[Layer::Engine]]);
}

#[test]
fn a_threshold_is_told_as_what_was_seen_on_both_sides() {
    let kernels = ["5.4", "5.10", "5.14", "6.1"];
    let hosts: Vec<Facts> = kernels.iter().map(|kernel| facts(&[("kernel.release", kernel)])).collect();
    let cells: Vec<CellId> = kernels.iter().map(|kernel| format!("h{kernel}:docker:new").parse().unwrap()).collect();
    let subject =
        |(cell, host)| Subject { cell, role: Role::Cell, ran: true, host: Some(host), engine: None, image: None };
    let causes = Causes::new(cells.iter().zip(&hosts).map(subject).collect(), None);
    let told = |fails: [bool; 4]| {
        let cause = causes.of(&fails.map(Some));
        (cause.condition.unwrap(), cause.thresholds)
    };
    let old = told([true, true, false, false]);
    assert_eq!(old, ("host.kernel.release<5.14".into(), vec!["host.kernel.release: 5.10 fails, 5.14 passes".into()]));
    let new = told([false, false, true, true]);
    assert_eq!(new, ("host.kernel.release>=5.14".into(), vec!["host.kernel.release: 5.14 fails, 5.10 passes".into()]));
}

#[test]
fn words_of_hosts_and_engines_are_words_of_rules() {
    let hosts = ["quiet vsyscall=none", "vsyscall=none", "quiet", "nosmap"];
    let hosts: Vec<Facts> = hosts.iter().map(|words| facts(&[("kernel.cmdline", words)])).collect();
    let engine = |security: &str| facts(&[("engine.kind", "docker"), ("engine.security", security)]);
    let engines = [engine("seccomp=builtin apparmor"), engine("seccomp=builtin")];
    let at: Vec<(usize, usize)> = (0..4).flat_map(|host| (0..2).map(move |engine| (host, engine))).collect();
    let cells: Vec<CellId> =
        at.iter().map(|(host, engine)| format!("h{host}:e{engine}:new").parse().unwrap()).collect();
    let subjects = cells.iter().zip(&at).map(|(cell, &(host, engine))| Subject {
        cell,
        role: Role::Cell,
        ran: true,
        host: Some(&hosts[host]),
        engine: Some(&engines[engine]),
        image: None,
    });
    let causes = Causes::new(subjects.collect(), None);
    let told = |fails: &dyn Fn(usize, usize) -> bool| {
        let fails: Vec<Option<bool>> = at.iter().map(|&(host, engine)| Some(fails(host, engine))).collect();
        causes.of(&fails).condition.unwrap()
    };
    assert_eq!(told(&|host, _| host < 2), "host.cmdline.vsyscall=none");
    assert_eq!(told(&|_, engine| engine == 0), "engine.security.apparmor=yes");
    let both = told(&|host, engine| host < 2 && engine == 0);
    assert_eq!(both.split(" & ").count(), 2, "{both}");
}

#[test]
fn of_conditions_that_say_the_same_the_one_that_is_about_the_check_is_told() {
    let engine = |seccomp, storage| facts(&[("engine.seccomp", seccomp), ("engine.storage.backing", storage)]);
    let engines = [engine("default", "extfs"), engine("unconfined", "tmpfs")];
    let cells: Vec<CellId> = (0..2).map(|at| format!("h:e{at}:new").parse().unwrap()).collect();
    let subject =
        |(cell, engine)| Subject { cell, role: Role::Cell, ran: true, host: None, engine: Some(engine), image: None };
    let causes = Causes::new(cells.iter().zip(&engines).map(subject).collect(), None);
    let (failing, passing) = labels(&[(0, 1), (1, 0)]);
    let learned = causes.learn(&failing, &passing);
    for (group, told, same) in [
        ("fs", "engine.storage.backing=tmpfs", "engine.seccomp=unconfined"),
        ("syscall", "engine.seccomp=unconfined", "engine.storage.backing=tmpfs"),
    ] {
        let cause = causes.condition(&learned, group);
        assert_eq!(cause.condition.as_deref(), Some(told));
        assert!(cause.ties[0].starts_with(&format!("{told} ≡ ")) && cause.ties[0].contains(same), "{:?}", cause.ties);
    }
}
