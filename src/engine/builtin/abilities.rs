//! What a host lets the built-in engine do: tried out, not guessed from versions.
//!
//! In: the launcher and a directory to mount on. Out: an [`Identity`] (as whom cells are made) and findings by name, each
//! yes or the reason why not. Must not know: images, jobs.

use std::sync::Arc;
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
use crate::host::{Reach, Site, text};

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
    /// As the settings ask for and who we are on the host is able to.
    pub(crate) async fn find(userns: Userns, reach: &dyn Reach, site: &Site) -> Result<Self, Fault> {
        let status = text(reach, "/proc/self/status").await;
        let set = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
        };
        let own = Capabilities(set("CapEff:") & set("CapBnd:"));
        let rooted = site.uid == 0 && own.has("SYS_ADMIN");
        let maps = match (userns, rooted) {
            (Userns::AsNeeded | Userns::Host, true) => Maps::None,
            (Userns::Private, true) => Maps::All,
            (Userns::Host, false) => {
                return Err(refused("option `userns`: `host` needs root, with CAP_SYS_ADMIN")
                    .hint("leave the option out: a user namespace is made where there is no other way"));
            }
            (_, false) => ranges(reach, site).await.unwrap_or(Maps::Own { uid: site.uid, gid: site.gid }),
        };
        let capabilities = if maps == Maps::None { own } else { Capabilities::ALL };
        let known = known_to_the_kernel(&text(reach, "/proc/sys/kernel/cap_last_cap").await);
        Ok(Self {
            capabilities: Capabilities(capabilities.0 & known),
            maps,
            kernel: kernel_version(&site.kernel_release),
            has_kcore: reach.stat("/proc/kcore").await.is_ok(),
            cgroup_namespaces: reach.stat("/proc/self/ns/cgroup").await.is_ok(),
            cgroup_hierarchies: hierarchies(&text(reach, "/proc/self/mounts").await),
        })
    }
}

fn known_to_the_kernel(last_cap: &str) -> u64 {
    let last = last_cap.trim().parse::<u32>().ok();
    last.filter(|last| *last < 63).map_or(u64::MAX, |last| (1 << (last + 1)) - 1)
}

/// `6.1` of `6.1.0-9-amd64`.
pub(crate) fn kernel_version(release: &str) -> (u32, u32) {
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
async fn ranges(reach: &dyn Reach, site: &Site) -> Option<Maps> {
    let (newuidmap, newgidmap) = (helper(reach, "newuidmap").await?, helper(reach, "newgidmap").await?);
    let passwd = text(reach, "/etc/passwd").await;
    let name = passwd.lines().find_map(|line| {
        let words: Vec<&str> = line.split(':').collect();
        (words.get(2)?.parse() == Ok(site.uid)).then(|| words[0].to_owned())
    });
    let map = |file: &str, id: u32| {
        let (start, count) = subordinate(file, site.uid, name.as_deref())?;
        Some(["0", &id.to_string(), "1", "1", &start.to_string(), &count.to_string()].map(str::to_owned).to_vec())
    };
    let (subuid, subgid) = (text(reach, "/etc/subuid").await, text(reach, "/etc/subgid").await);
    Some(Maps::Ranges { newuidmap, newgidmap, uids: map(&subuid, site.uid)?, gids: map(&subgid, site.gid)? })
}

async fn helper(reach: &dyn Reach, name: &str) -> Option<String> {
    for dir in ["/usr/bin", "/bin", "/usr/sbin", "/sbin"] {
        let path = format!("{dir}/{name}");
        if reach.stat(&path).await.is_ok() {
            return Some(path);
        }
    }
    None
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
pub(crate) async fn try_out(
    reach: &Arc<dyn Reach>,
    identity: &Identity,
    site: &Site,
    cgroups: &Cgroups,
) -> Vec<Finding> {
    let here = Canaries { reach: &**reach, launcher: &site.launcher };
    let mut findings = vec![];
    let mut find = |name, works, needed| findings.push(Finding { name, works, needed });
    let own = Identity {
        maps: if identity.maps == Maps::None { Maps::All } else { identity.maps.clone() },
        ..identity.clone()
    };
    let with_user = here.sing(&own, 0, |_| {}).await;
    find("user namespaces", with_user, identity.maps != Maps::None);
    let all = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC;
    find("namespaces", here.sing(identity, all, |_| {}).await, true);
    let overlay = here.sing(identity, CLONE_NEWNS, |list| {
        list.open(0, &site.dir, 0o10000000);
        list.mount("tmpfs", &site.mount_point, "tmpfs", 0, "mode=755").chdir(&site.mount_point);
        list.mkdir("upper", 0o755).mkdir("work", 0o755).mkdir("root", 0o755);
        list.mount("overlay", "root", "overlay", 0, &overlay_data(identity, &List::slot(0)));
    });
    find("overlay", overlay.await, true);
    find(
        "proc",
        here.sing(identity, all, |list| {
            // Where systemd boots, mounts are shared: what is mounted here would cover the host's own /proc.
            list.mount("", "/", "", MS_REC | MS_PRIVATE, "");
            list.mount("proc", "/proc", "proc", 14, "");
        })
        .await,
        true,
    );
    find(
        "loopback",
        here.sing(identity, CLONE_NEWNET, |list| {
            list.loopback();
        })
        .await,
        true,
    );
    let around = Surroundings { capabilities: Capabilities::docker(), kernel: identity.kernel };
    let filter = docker_default().and_then(|profile| compile(&profile, &around));
    let seccomp = match filter {
        Ok(program) => {
            here.sing(identity, CLONE_NEWUTS, |list| {
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

/// Who sends canaries, and what they execute in the end.
struct Canaries<'a> {
    reach: &'a dyn Reach,
    launcher: &'a str,
}

impl Canaries<'_> {
    /// Performs operations in new namespaces and executes the launcher itself, which says how it is used and exits 2.
    async fn sing(&self, identity: &Identity, flags: u64, operations: impl FnOnce(&mut List)) -> Result<(), String> {
        let mut list = List::new();
        identity_maps(&mut list, identity, flags);
        list.stage(stage::INSIDE);
        become_root(&mut list, identity);
        if flags & CLONE_NEWNS != 0 {
            // Where `/` is shared, as systemd makes it, a mount in a new namespace would show up on the host.
            list.mount("", "/", "", MS_REC | MS_PRIVATE, "");
        }
        operations(&mut list);
        let program = self.launcher.to_owned();
        list.stdin("/dev/null").exec(std::slice::from_ref(&program), std::slice::from_ref(&program), &[]);
        let job = Launch { reach: self.reach, list: &list, deadline: Duration::from_secs(10), cap: 4096 };
        match launch(&job).await.0.ended {
            Ok(Ended::Exit(2)) => Ok(()),
            Ok(other) => Err(format!("the canary ended with {other:?}")),
            Err(fault) => Err(fault.cause),
        }
    }
}

/// The first thing that is needed and does not work, as a fault that says what to do.
pub(crate) async fn verdict(reach: &dyn Reach, findings: &[Finding]) -> Result<(), Fault> {
    let Some(Finding { name, works: Err(why), .. }) = findings.iter().find(|f| f.needed && f.works.is_err()) else {
        return Ok(());
    };
    Err(refused(format!("{name}: {why}")).hint(advice(reach, name).await))
}

/// What forbids user namespaces is a handful of switches; the one that is thrown is named.
async fn advice(reach: &dyn Reach, name: &str) -> String {
    for (file, bad, cure) in [
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ] {
        if text(reach, file).await.trim() == bad {
            return format!("{file} is {bad}: `{cure}` as root, or be root there");
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

    #[tokio::test]
    async fn what_is_needed_and_lacking_is_named_with_advice() {
        let finding =
            |name, works: Result<(), &str>, needed| Finding { name, works: works.map_err(str::to_owned), needed };
        let fine = [finding("overlay", Ok(()), true), finding("memory limit", Err("denied"), false)];
        let here = crate::host::Local::at("/nowhere");
        assert_eq!(verdict(&here, &fine).await, Ok(()));
        let fault = verdict(&here, &[finding("overlay", Err("no such device"), true)]).await.unwrap_err();
        assert!(fault.cause.contains("overlay: no such device"), "{fault}");
        assert!(fault.hint.is_some());
    }
}
