//! What this machine lets the built-in engine do: tried out, not guessed from versions.
//!
//! In: the launcher and a directory to mount on. Out: an [`Identity`] (as whom cells are made) and findings by name, each
//! yes or the reason why not. Must not know: images, jobs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::capabilities::Capabilities;
use super::cgroup::{Cgroups, Controller};
use super::launch::{Launch, launch};
use super::list::{List, stage};
use super::policy::{
    CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS, MS_PRIVATE, MS_REC, become_root,
    identity_maps, overlay_data,
};
use super::seccomp::{Surroundings, compile, docker_default};
use super::settings::{Userns, refused};
use crate::engine::Ended;
use crate::fault::Fault;

/// How the user ids of a cell relate to the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Maps {
    /// No user namespace.
    None,
    /// Only our own user, as root.
    Own { uid: u32, gid: u32 },
    /// Every id as itself: a user namespace made by root.
    All,
    /// Our own user as root and the ranges given to us, by the set-uid helpers.
    Ranges { newuidmap: String, newgidmap: String, uids: Vec<String>, gids: Vec<String> },
}

/// As whom, and with which means, cells are made.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) maps: Maps,
    /// Most that a cell can have.
    pub(crate) capabilities: Capabilities,
    pub(crate) kernel: (u32, u32),
    pub(crate) cgroup_namespaces: bool,
    pub(crate) has_kcore: bool,
    /// Mount options of the hierarchies of version 1, `cgroup2` for version 2.
    pub(crate) cgroup_hierarchies: Vec<String>,
}

impl Identity {
    /// As the settings ask for and this process is able to.
    pub(crate) fn find(userns: Userns) -> Result<Self, Fault> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let set = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
        };
        let own = Capabilities(set("CapEff:") & set("CapBnd:"));
        let rooted = uid == 0 && own.has("SYS_ADMIN");
        let maps = match (userns, rooted) {
            (Userns::AsNeeded | Userns::Host, true) => Maps::None,
            (Userns::Private, true) => Maps::All,
            (Userns::Host, false) => {
                return Err(refused("option `userns`: `host` needs root, with CAP_SYS_ADMIN")
                    .hint("leave the option out: a user namespace is made where there is no other way"));
            }
            (_, false) => ranges(uid, gid).unwrap_or(Maps::Own { uid, gid }),
        };
        let capabilities = if maps == Maps::None { own } else { Capabilities::ALL };
        Ok(Self {
            capabilities: Capabilities(capabilities.0 & known_to_the_kernel()),
            maps,
            kernel: kernel_version(),
            has_kcore: Path::new("/proc/kcore").exists(),
            cgroup_namespaces: Path::new("/proc/self/ns/cgroup").exists(),
            cgroup_hierarchies: hierarchies(&fs::read_to_string("/proc/self/mounts").unwrap_or_default()),
        })
    }
}

fn known_to_the_kernel() -> u64 {
    let last =
        fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok().and_then(|text| text.trim().parse::<u32>().ok());
    last.filter(|last| *last < 63).map_or(u64::MAX, |last| (1 << (last + 1)) - 1)
}

/// `6.1` of `6.1.0-9-amd64`.
pub(crate) fn kernel_version() -> (u32, u32) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|word| word.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn hierarchies(mounts: &str) -> Vec<String> {
    let mut found = vec![];
    for words in mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).filter(|words| words.len() >= 4) {
        let wanted = |option: &&str| !matches!(*option, "rw" | "ro" | "relatime" | "nosuid" | "nodev" | "noexec");
        match words[2] {
            "cgroup2" => found.push("cgroup2".to_owned()),
            "cgroup" => found.push(words[3].split(',').filter(wanted).collect::<Vec<_>>().join(",")),
            _ => {}
        }
    }
    found.retain(|options| options.split(',').all(|o| !o.starts_with("release_agent=") && o != "clone_children"));
    found.sort();
    found.dedup();
    found
}

/// Our range of subordinate ids, where the helpers and both ranges are there.
fn ranges(uid: u32, gid: u32) -> Option<Maps> {
    let helper = |name: &str| {
        let dirs = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];
        dirs.iter().map(|dir| format!("{dir}/{name}")).find(|path| Path::new(path).exists())
    };
    let (newuidmap, newgidmap) = (helper("newuidmap")?, helper("newgidmap")?);
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let words: Vec<&str> = line.split(':').collect();
        (words.get(2)?.parse() == Ok(uid)).then(|| words[0].to_owned())
    });
    let map = |file: &str, id: u32| {
        let (start, count) = subordinate(&fs::read_to_string(file).ok()?, uid, name.as_deref())?;
        Some(["0", &id.to_string(), "1", "1", &start.to_string(), &count.to_string()].map(str::to_owned).to_vec())
    };
    Some(Maps::Ranges { newuidmap, newgidmap, uids: map("/etc/subuid", uid)?, gids: map("/etc/subgid", gid)? })
}

/// First range of subuid(5) that belongs to the user, by name or number.
fn subordinate(text: &str, uid: u32, name: Option<&str>) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let words: Vec<&str> = line.trim().split(':').collect();
        let [owner, start, count] = words.as_slice() else { return None };
        let ours = Some(*owner) == name || owner.parse() == Ok(uid);
        let range = (start.parse().ok()?, count.parse().ok()?);
        (ours && range.1 > 0).then_some(range)
    })
}

/// One thing tried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) name: &'static str,
    pub(crate) works: Result<(), String>,
    /// Whether the engine is of no use without it.
    pub(crate) needed: bool,
}

/// Tries out what cells need, one thing at a time, so that each failure has its own name.
pub(crate) async fn try_out(identity: &Identity, launcher: &Path, work: &Path, cgroups: &Cgroups) -> Vec<Finding> {
    let mount_point = work.join("mnt").to_string_lossy().into_owned();
    let mut findings = vec![];
    let mut find = |name, works, needed| findings.push(Finding { name, works, needed });
    let own = Identity {
        maps: if identity.maps == Maps::None { Maps::All } else { identity.maps.clone() },
        ..identity.clone()
    };
    let with_user = canary(&own, 0, launcher, |_| {}).await;
    find("user namespaces", with_user, identity.maps != Maps::None);
    let all = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC;
    find("namespaces", canary(identity, all, launcher, |_| {}).await, true);
    let overlay = canary(identity, CLONE_NEWNS, launcher, |list| {
        list.open(0, &work.to_string_lossy(), 0o10000000);
        list.mount("tmpfs", &mount_point, "tmpfs", 0, "mode=755").chdir(&mount_point);
        list.mkdir("upper", 0o755).mkdir("work", 0o755).mkdir("root", 0o755);
        list.mount("overlay", "root", "overlay", 0, &overlay_data(identity, &List::slot(0)));
    });
    find("overlay", overlay.await, true);
    find(
        "proc",
        canary(identity, all, launcher, |list| {
            // Where systemd boots, mounts are shared: what is mounted here would cover the host's own /proc.
            list.mount("", "/", "", MS_REC | MS_PRIVATE, "");
            list.mount("proc", "/proc", "proc", 14, "");
        })
        .await,
        true,
    );
    find(
        "loopback",
        canary(identity, CLONE_NEWNET, launcher, |list| {
            list.loopback();
        })
        .await,
        true,
    );
    let around = Surroundings { capabilities: Capabilities::docker(), kernel: identity.kernel };
    let filter = docker_default().and_then(|profile| compile(&profile, &around));
    let seccomp = match filter {
        Ok(program) => {
            canary(identity, CLONE_NEWUTS, launcher, |list| {
                list.seccomp(&program);
            })
            .await
        }
        Err(e) => Err(e.to_string()),
    };
    find("seccomp", seccomp, true);
    for controller in Controller::ALL {
        let name = match controller {
            Controller::Memory => "memory limit",
            Controller::Pids => "process limit",
            Controller::Cpu => "cpu limit",
        };
        find(name, cgroups.can(controller).map_err(str::to_owned), false);
    }
    findings
}

/// Performs operations in new namespaces and executes the launcher itself, which says how it is used and exits 2.
async fn canary(
    identity: &Identity,
    flags: u64,
    launcher: &Path,
    operations: impl FnOnce(&mut List),
) -> Result<(), String> {
    let mut list = List::new();
    identity_maps(&mut list, identity, flags);
    list.stage(stage::INSIDE);
    become_root(&mut list, identity);
    if flags & CLONE_NEWNS != 0 {
        // Where `/` is shared, as systemd makes it, a mount in a new namespace would show up on the host.
        list.mount("", "/", "", MS_REC | MS_PRIVATE, "");
    }
    operations(&mut list);
    let program = launcher.to_string_lossy().into_owned();
    list.stdin("/dev/null").exec(std::slice::from_ref(&program), std::slice::from_ref(&program), &[]);
    let job = Launch { launcher, list: &list, deadline: Duration::from_secs(10), cap: 4096 };
    match launch(&job).await.0.ended {
        Ok(Ended::Exit(2)) => Ok(()),
        Ok(other) => Err(format!("the canary ended with {other:?}")),
        Err(fault) => Err(fault.cause),
    }
}

/// The first thing that is needed and does not work, as a fault that says what to do.
pub(crate) fn verdict(findings: &[Finding]) -> Result<(), Fault> {
    let Some(Finding { name, works: Err(why), .. }) = findings.iter().find(|f| f.needed && f.works.is_err()) else {
        return Ok(());
    };
    Err(refused(format!("{name}: {why}")).hint(advice(name)))
}

/// What forbids user namespaces is a handful of switches; the one that is thrown is named.
fn advice(name: &str) -> String {
    let is = |file: &str, value: &str| fs::read_to_string(file).is_ok_and(|text| text.trim() == value);
    for (file, bad, cure) in [
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ] {
        if is(file, bad) {
            return format!("{file} is {bad}: `{cure}` as root, or run abicus as root");
        }
    }
    match name {
        "overlay" => "overlayfs in a user namespace needs Linux 5.11: run abicus as root, or use podman".to_owned(),
        "proc" => "a container that hides parts of /proc cannot mount another: run abicus outside of it".to_owned(),
        _ => "run abicus as root, or use docker or podman".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_belong_to_a_user_by_name_or_number() {
        let text = "root:100:5\nann:100000:65536\n1001:200000:65536\nbob:x:y\n";
        assert_eq!(subordinate(text, 1000, Some("ann")), Some((100_000, 65536)));
        assert_eq!(subordinate(text, 1001, None), Some((200_000, 65536)));
        assert_eq!(subordinate(text, 1002, Some("bob")), None);
    }

    #[test]
    fn hierarchies_are_known_by_what_mounts_them_again() {
        let mounts = "cgroup /a cgroup rw,relatime,cpu,cpuacct 0 0\ncgroup /b cgroup rw,name=systemd 0 0\n\
                      cgroup2 /c cgroup2 rw 0 0\nproc /proc proc rw 0 0\n";
        assert_eq!(hierarchies(mounts), ["cgroup2", "cpu,cpuacct", "name=systemd"]);
    }

    #[test]
    fn what_is_needed_and_lacking_is_named_with_advice() {
        let finding =
            |name, works: Result<(), &str>, needed| Finding { name, works: works.map_err(str::to_owned), needed };
        let fine = [finding("overlay", Ok(()), true), finding("memory limit", Err("denied"), false)];
        assert_eq!(verdict(&fine), Ok(()));
        let fault = verdict(&[finding("overlay", Err("no such device"), true)]).unwrap_err();
        assert!(fault.cause.contains("overlay: no such device"), "{fault}");
        assert!(fault.hint.is_some());
    }
}
