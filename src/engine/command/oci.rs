//! OCI runtimes: a bundle as docker would write it, and the command line that containerd speaks with every runtime.
//!
//! In: a cell. Out: `config.json` and its companions, `runtime --root … run`. Pure. The specification's own types check
//! what is written: https://github.com/opencontainers/runtime-spec/blob/v1.0.2/config.md

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use crate::engine::PAYLOAD_DIR;
use crate::engine::builtin::abilities::Maps;
use crate::engine::builtin::cgroup::Cgroups;
use crate::engine::builtin::list::List;
use crate::engine::builtin::policy::{HOSTNAME, HOSTS, MASKED, READ_ONLY};
use crate::engine::builtin::seccomp::Surroundings;
use crate::engine::builtin::settings::{MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, RLIMITS, Tmpfs, refused};
use crate::engine::options::Seccomp;
use crate::fault::Fault;

use super::frame::LOG;
use super::line::{Cell, Line, environment};

pub(super) fn line<'a>(cell: &Cell<'a>) -> Result<Line<'a>, Fault> {
    let at = cell.mount_point;
    let mut argv = vec![cell.program(), "--root".to_owned(), format!("{at}/state")];
    argv.extend(["--log".to_owned(), List::slot(LOG), "--log-format".to_owned(), "json".to_owned()]);
    argv.extend(own_arguments(cell).into_iter().map(str::to_owned));
    argv.extend(["run".to_owned(), "--bundle".to_owned(), at.to_owned(), cell.name.to_owned()]);
    let resolv_conf =
        if cell.settings.host_network { cell.resolv_conf.to_vec() } else { b"# this cell has no network\n".to_vec() };
    let files = [
        ("config.json", config(cell)?),
        ("hosts", HOSTS.to_vec()),
        ("hostname", format!("{HOSTNAME}\n").into_bytes()),
        ("resolv.conf", resolv_conf),
    ];
    Ok(Line {
        files: files.map(|(name, bytes)| (name.to_owned(), bytes)).to_vec(),
        argv,
        environment: environment(),
        ..Line::default()
    })
}

/// What a runtime wants to be told besides.
fn own_arguments(cell: &Cell) -> Vec<&'static str> {
    if !cell.flavour.has_a_network_of_its_own() {
        return cell.flavour.quietly().to_vec();
    }
    let mut words = vec![if cell.settings.host_network { "--network=host" } else { "--network=none" }];
    if !cell.is_rooted() {
        words.extend(["--rootless", "--ignore-cgroups"]);
    }
    if cell.options.capabilities.add.iter().any(|name| name.to_ascii_uppercase().ends_with("NET_RAW")) {
        words.push("--net-raw");
    }
    if cell.options.seccomp.as_ref().is_some_and(|profile| *profile != Seccomp::Unconfined) {
        words.push("--oci-seccomp");
    }
    words
}

/// The types only check: they keep capabilities in no order, and equal cells have equal bundles.
fn config(cell: &Cell) -> Result<Vec<u8>, Fault> {
    let wrong = |e: serde_json::Error| refused(format!("config.json: {e}"));
    let bytes = serde_json::to_vec(&bundle(cell)?).map_err(wrong)?;
    serde_json::from_slice::<Spec>(&bytes).map_err(wrong)?;
    Ok(bytes)
}

fn bundle(cell: &Cell) -> Result<Value, Fault> {
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": process(cell)?,
        "root": { "path": "root", "readonly": cell.settings.read_only },
        "hostname": HOSTNAME,
        "mounts": mounts(cell),
        "linux": linux(cell)?,
    }))
}

fn process(cell: &Cell) -> Result<Value, Fault> {
    let (uid, gid) = cell.user;
    let single = matches!(cell.identity.maps, Maps::Own { .. });
    if single && (uid, gid) != (0, 0) {
        return Err(refused("option `user`: only one user exists in this user namespace")
            .hint("install uidmap and give yourself a range in /etc/subuid and /etc/subgid, or run as root"));
    }
    let all: Vec<String> = cell.capabilities.names().map(|name| format!("CAP_{name}")).collect();
    // As docker, and as execve does: a user other than root starts with an empty set.
    let own = if uid == 0 { all.clone() } else { vec![] };
    let rlimits: Vec<Value> = cell.settings.ulimits.iter().map(rlimit).collect();
    let mut process = json!({
        "terminal": false,
        "user": { "uid": uid, "gid": gid },
        "args": cell.argv,
        "env": cell.cell_environment().map(|(name, value)| format!("{name}={value}")),
        "cwd": "/",
        "capabilities": { "bounding": all, "effective": own, "permitted": own },
        "rlimits": rlimits,
    });
    // No word of `noNewPrivileges`, as docker writes none: youki 0.7 takes `false` for being set and then loads the filter
    // only when the capabilities for that are gone (libcontainer, `process/init/process.rs`).
    if !single {
        // Docker since 20.10.18: the primary group is a supplementary one too (CVE-2022-36109).
        process["user"]["additionalGids"] = json!([gid]);
    }
    if let Some(profile) = cell.options.apparmor_profile() {
        process["apparmorProfile"] = json!(profile);
    }
    if let Some(label) = cell.options.selinux_label() {
        process["selinuxLabel"] = json!(label);
    }
    Ok(process)
}

fn rlimit((number, soft, hard): &(u64, u64, u64)) -> Value {
    let name = RLIMITS.get(*number as usize).copied().unwrap_or_default().to_ascii_uppercase();
    json!({ "type": format!("RLIMIT_{name}"), "soft": soft, "hard": hard })
}

const QUIET: [&str; 3] = ["nosuid", "noexec", "nodev"];

fn mount(kind: &str, source: &str, destination: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

/// Docker 20.10's mounts, in its order.
fn mounts(cell: &Cell) -> Vec<Value> {
    let quiet = |more: &[&'static str]| [&QUIET[..], more].concat();
    let writable = if cell.settings.privileged { "rw" } else { "ro" };
    let shm = format!("size={}", cell.settings.shm_size);
    let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    // A group that is not mapped cannot own terminals.
    let pts = if matches!(cell.identity.maps, Maps::Own { .. }) { &pts[..5] } else { &pts[..] };
    let mut mounts = vec![
        mount("proc", "proc", "/proc", &QUIET),
        mount("tmpfs", "tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("devpts", "devpts", "/dev/pts", pts),
    ];
    // A user namespace mounts sysfs only together with a network namespace of its own.
    if cell.settings.host_network && (!cell.is_rooted() || own_users(cell)) {
        mounts.push(mount("bind", "/sys", "/sys", &quiet(&["rbind", writable])));
    } else {
        mounts.push(mount("sysfs", "sysfs", "/sys", &quiet(&[writable])));
        if !cell.identity.cgroup_hierarchies.is_empty() {
            mounts.push(mount("cgroup", "cgroup", "/sys/fs/cgroup", &quiet(&[writable])));
        }
    }
    mounts.push(mount("mqueue", "mqueue", "/dev/mqueue", &QUIET));
    mounts.push(mount("tmpfs", "shm", "/dev/shm", &[&QUIET[..], &["mode=1777", &shm]].concat()));
    mounts.extend(cell.settings.tmpfs.iter().map(tmpfs));
    for name in ["resolv.conf", "hostname", "hosts"] {
        let source = format!("{}/{name}", cell.mount_point);
        mounts.push(mount("bind", &source, &format!("/etc/{name}"), &["rbind", "rprivate"]));
    }
    if !cell.is_rooted() {
        for (host, inside) in &cell.settings.devices {
            mounts.push(mount("bind", host, inside, &["bind", "nosuid", "noexec"]));
        }
    }
    mounts.push(mount("bind", cell.payload, PAYLOAD_DIR, &["bind", "ro", "nosuid", "nodev", "rprivate"]));
    mounts
}

fn tmpfs(tmpfs: &Tmpfs) -> Value {
    let flags = [(MS_RDONLY, "ro"), (MS_NOSUID, "nosuid"), (MS_NODEV, "nodev"), (MS_NOEXEC, "noexec")];
    let mut options: Vec<&str> =
        flags.iter().filter(|(flag, _)| tmpfs.flags & flag != 0).map(|(_, name)| *name).collect();
    options.extend(tmpfs.data.split(',').filter(|word| !word.is_empty()));
    mount("tmpfs", "tmpfs", &tmpfs.path, &options)
}

fn linux(cell: &Cell) -> Result<Value, Fault> {
    let settings = cell.settings;
    let mut namespaces = vec!["pid", "ipc", "uts", "mount"];
    if !settings.host_network {
        namespaces.push("network");
    }
    // Docker's default: with version 2 a cell sees its own group as the root.
    if cell.identity.cgroup_namespaces && cell.identity.cgroup_hierarchies == ["cgroup2"] {
        namespaces.push("cgroup");
    }
    let mut linux = json!({
        "namespaces": namespaces.iter().map(|kind| json!({ "type": kind })).collect::<Vec<_>>(),
        "resources": {},
        "devices": [],
    });
    if !settings.privileged {
        linux["maskedPaths"] = json!(MASKED);
        linux["readonlyPaths"] = json!(READ_ONLY);
    }
    if !settings.host_network {
        // What docker sets since 20.10.
        linux["sysctl"] = json!({ "net.ipv4.ip_unprivileged_port_start": "0" });
        if cell.is_rooted() {
            linux["sysctl"]["net.ipv4.ping_group_range"] = json!("0 2147483647");
        }
    }
    if let Some(profile) = &settings.seccomp {
        let around = Surroundings { capabilities: cell.capabilities, kernel: cell.identity.kernel };
        linux["seccomp"] = profile.oci(&around).map_err(|e| refused(format!("option `seccomp`: {e}")))?;
    }
    if own_users(cell) {
        // Every id as itself, as the built-in engine does.
        let every = json!([{ "containerID": 0, "hostID": 0, "size": u32::MAX }]);
        namespaces.push("user");
        linux["namespaces"] = namespaces.iter().map(|kind| json!({ "type": kind })).collect();
        (linux["uidMappings"], linux["gidMappings"]) = (every.clone(), every);
    }
    if cell.is_rooted() {
        let devices = devices(cell);
        linux["cgroupsPath"] = json!(Cgroups::path(cell.name));
        linux["resources"] = resources(cell, &devices);
        linux["devices"] = json!(devices);
    }
    Ok(linux)
}

/// Whether root asked for a user namespace; for others the frame is one.
fn own_users(cell: &Cell) -> bool {
    cell.is_rooted() && cell.options.userns.as_deref() == Some("private")
}

/// Devices besides the default ones.
fn devices(cell: &Cell) -> Vec<Value> {
    let device = |path: &str, mode: u64, number: u64| {
        let kind = if mode & 0o170_000 == 0o060_000 { "b" } else { "c" };
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        json!({ "path": path, "type": kind, "major": major, "minor": minor, "fileMode": mode & 0o777, "uid": 0, "gid": 0 })
    };
    let all = cell.host_devices.iter().chain(cell.devices);
    all.map(|(path, mode, number)| device(path, *mode, *number)).collect()
}

/// Docker's rules for devices, and the limits.
fn resources(cell: &Cell, devices: &[Value]) -> Value {
    let limits = &cell.settings.limits;
    let rule = |kind: &str, access: &str| json!({ "allow": true, "type": kind, "access": access });
    let mut rules = vec![json!({ "allow": cell.settings.privileged, "access": "rwm" })];
    if !cell.settings.privileged {
        rules.extend([rule("c", "m"), rule("b", "m")]);
        for (major, minor) in [(1, Some(5)), (1, Some(3)), (1, Some(9)), (1, Some(8)), (5, Some(0)), (5, Some(1))] {
            rules.push(json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" }));
        }
        for device in devices {
            let (kind, major, minor) = (&device["type"], &device["major"], &device["minor"]);
            rules.push(json!({ "allow": true, "type": kind, "major": major, "minor": minor, "access": "rwm" }));
        }
    }
    let mut resources = json!({ "devices": rules });
    if let Some(bytes) = limits.memory {
        // Swap counts memory in: none beyond it.
        resources["memory"] = json!({ "limit": bytes, "swap": bytes });
    }
    if let Some(most) = limits.pids {
        resources["pids"] = json!({ "limit": most });
    }
    if let Some(nano) = limits.nano_cpus {
        resources["cpu"] = json!({ "quota": (nano / 10_000).max(1000), "period": 100_000 });
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::super::quirks::Flavour;
    use super::*;
    use crate::engine::builtin::abilities::Identity;
    use crate::engine::builtin::policy::{Root, permitted};
    use crate::engine::builtin::settings::Settings;
    use crate::engine::command::Kind;

    /// What is made of a cell.
    fn made<T>(options: &str, maps: Maps, flavour: Flavour, make: impl Fn(&Cell) -> T) -> Result<T, Fault> {
        let options = toml::from_str(options).unwrap();
        let settings = Settings::new(&options, None, &Kind::Oci.manner())?;
        let hierarchies = vec!["cgroup2".to_owned()];
        let identity = Identity {
            maps,
            capabilities: crate::engine::builtin::capabilities::Capabilities::ALL,
            kernel: (6, 1),
            cgroup_namespaces: true,
            has_kcore: true,
            cgroup_hierarchies: hierarchies,
        };
        let cell = Cell {
            kind: Kind::Oci,
            flavour,
            programs: &["/usr/bin/runtime".to_owned()],
            options: &options,
            settings: &settings,
            identity: &identity,
            capabilities: permitted(&settings, &identity),
            filter: None,
            root: &Root::Empty,
            user: match settings.user {
                crate::engine::builtin::settings::User::Ids(uid, gid) => (uid, gid),
                _ => (0, 0),
            },
            work: "/work",
            mount_point: "/mnt",
            payload: "/payload",
            name: "x",
            argv: &["/.abicus/kernel".to_owned()],
            host_devices: &[("/dev/sda".to_owned(), 0o060_660, 0x800)],
            devices: &[("/dev/x".to_owned(), 0o020_666, 0x103)],
            resolv_conf: b"",
        };
        Ok(make(&cell))
    }

    fn value(options: &str, maps: Maps, flavour: Flavour) -> Result<(Value, Vec<String>), Fault> {
        let line = |cell: &Cell| line(cell).map(|line| (line.files, line.argv));
        let (files, argv) = made(options, maps, flavour, line)??;
        let config = files.iter().find(|(name, _)| name == "config.json").unwrap();
        Ok((serde_json::from_slice(&config.1).unwrap(), argv))
    }

    fn strings(value: &Value) -> Vec<&str> {
        value.as_array().unwrap().iter().filter_map(Value::as_str).collect()
    }

    #[test]
    fn a_bundle_has_dockers_policy_and_the_payload_read_only() {
        let (config, argv) = value("", Maps::None, Flavour::Plain).unwrap();
        assert_eq!(strings(&config["process"]["capabilities"]["bounding"]).len(), 14);
        assert_eq!(config["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
        assert!(config["linux"]["seccomp"]["syscalls"].as_array().unwrap().len() > 5);
        assert_eq!(strings(&config["linux"]["maskedPaths"]).len(), 10);
        assert_eq!(config["linux"]["cgroupsPath"], "/abicus/x");
        let mounts = config["mounts"].as_array().unwrap();
        let payload = mounts.iter().find(|mount| mount["destination"] == "/.abicus").unwrap();
        assert!(strings(&payload["options"]).contains(&"ro"), "{payload}");
        assert_eq!(argv[..3], ["/usr/bin/runtime", "--root", "/mnt/state"]);
        assert_eq!(argv[argv.len() - 4..], ["run", "--bundle", "/mnt", "x"]);
    }

    #[test]
    fn every_option_reaches_the_bundle() {
        let options = "seccomp = 'unconfined'\nread_only = true\nuser = '5:6'\nnetwork = 'host'\nmemory = '32m'\ncpus = 0.5
            pids_limit = 7\ntmpfs = ['/t:size=1m,exec']\nulimits = { nofile = { soft = 1, hard = 2 } }\nshm_size = 4096
            devices = ['/dev/null:/dev/x']\ncapabilities = { drop = ['ALL'], add = ['KILL'] }\napparmor = 'a'\nselinux = 's'";
        let (config, _) = value(options, Maps::None, Flavour::Plain).unwrap();
        let process = &config["process"];
        assert_eq!((&process["user"]["uid"], &process["user"]["gid"]), (&json!(5), &json!(6)));
        assert_eq!(strings(&process["capabilities"]["bounding"]), ["CAP_KILL"]);
        assert!(process["capabilities"]["effective"].as_array().is_none_or(Vec::is_empty), "{process}");
        assert_eq!(process["rlimits"][0], json!({ "type": "RLIMIT_NOFILE", "soft": 1, "hard": 2 }));
        assert_eq!((&process["apparmorProfile"], &process["selinuxLabel"]), (&json!("a"), &json!("s")));
        assert_eq!(config["root"]["readonly"], true);
        let linux = &config["linux"];
        assert!(linux.get("seccomp").is_none_or(Value::is_null) && linux["sysctl"].is_null());
        assert!(!linux["namespaces"].to_string().contains("network"));
        assert_eq!(linux["resources"]["memory"], json!({ "limit": 32 << 20, "swap": 32 << 20 }));
        assert_eq!(linux["resources"]["pids"]["limit"], 7);
        assert_eq!(linux["resources"]["cpu"]["quota"], 50_000);
        assert_eq!(linux["devices"].to_string().matches("/dev/x").count(), 1, "{}", linux["devices"]);
        let mounts = config["mounts"].to_string();
        assert!(mounts.contains("size=1m") && mounts.contains("size=4096"), "{mounts}");
    }

    #[test]
    fn to_be_unconfined_is_to_have_no_profile_and_no_label() {
        let (config, _) = value("apparmor = 'unconfined'\nselinux = 'disable'", Maps::None, Flavour::Plain).unwrap();
        let process = &config["process"];
        assert!(process["apparmorProfile"].is_null() && process["selinuxLabel"].is_null(), "{process}");
    }

    #[test]
    fn a_privileged_cell_has_the_hosts_devices_and_nothing_masked() {
        let (config, _) = value("privileged = true", Maps::None, Flavour::Plain).unwrap();
        assert!(config["linux"]["devices"].to_string().contains("/dev/sda"));
        assert!(config["linux"]["maskedPaths"].as_array().is_none_or(Vec::is_empty));
        assert_eq!(config["linux"]["resources"]["devices"][0]["allow"], true);
    }

    #[test]
    fn without_root_there_are_no_control_groups_and_one_user() {
        let own = || Maps::Own { uid: 5, gid: 6 };
        let (config, argv) = value("", own(), Flavour::Runsc).unwrap();
        assert!(config["linux"]["cgroupsPath"].is_null() && config["process"]["user"]["additionalGids"].is_null());
        assert!(argv.contains(&"--rootless".to_owned()) && argv.contains(&"--network=none".to_owned()), "{argv:?}");
        assert!(value("user = '7'", own(), Flavour::Plain).unwrap_err().cause.contains("only one user"));
    }

    #[test]
    fn the_specifications_types_lose_nothing_of_what_is_written() {
        let options =
            "memory = '1g'\ncpus = 1\npids_limit = 5\nulimits = { core = 0 }\nprivileged = true\nseccomp = 'default'
            devices = ['/dev/null']\napparmor = 'a'\nselinux = 's'";
        let written = made(options, Maps::None, Flavour::Plain, bundle).unwrap().unwrap();
        let spec: Spec = serde_json::from_value(written.clone()).unwrap();
        let mut lost = vec![];
        compare("", &written, &serde_json::to_value(spec).unwrap(), &mut lost);
        assert_eq!(lost, Vec::<String>::new());
    }

    /// What of `a` is not in `b`.
    fn compare(at: &str, a: &Value, b: &Value, lost: &mut Vec<String>) {
        match (a, b) {
            (Value::Object(map), _) => {
                map.iter().for_each(|(key, a)| compare(&format!("{at}/{key}"), a, &b[key], lost))
            }
            (Value::Array(list), Value::Array(other)) if list.len() == other.len() => {
                let (mut list, mut other) = (list.clone(), other.clone());
                list.sort_by_key(Value::to_string);
                other.sort_by_key(Value::to_string);
                list.iter().zip(&other).enumerate().for_each(|(n, (a, b))| compare(&format!("{at}/{n}"), a, b, lost));
            }
            _ if a == b => {}
            _ => lost.push(format!("{at}: {a} became {b}")),
        }
    }
}
