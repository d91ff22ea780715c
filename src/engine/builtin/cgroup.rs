//! Where cells' limits on memory, processes and CPU time are set: control groups, version 1 or 2.
//!
//! In: the mounts of the host. Out: a directory for each controller, or the reason why there is none, and the
//! operations that make, enter, read and remove a group. Must not know: whose cell it is beyond a name.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::launch::{Launch, launch};
use super::list::{List, stage};
use crate::host::{Reach, Site, text};
use crate::id::RunId;

/// The directory under which all groups of this program lie.
const PARENT: &str = "abicus";

/// The controllers used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Controller {
    Memory,
    Pids,
    Cpu,
}

impl Controller {
    pub(crate) const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }
}

/// Limits of one cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes, swap included.
    pub(crate) memory: Option<u64>,
    pub(crate) pids: Option<u64>,
    /// Billionths of a CPU.
    pub(crate) nano_cpus: Option<u64>,
}

impl Limits {
    fn needs(&self) -> impl Iterator<Item = Controller> {
        let set = [self.memory, self.pids, self.nano_cpus];
        Controller::ALL.into_iter().zip(set).filter_map(|(controller, limit)| limit.map(|_| controller))
    }
}

/// What the host offers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cgroups {
    /// 1, 2, or 0 where there is none.
    pub(crate) version: u8,
    /// Our own directory of each usable controller.
    usable: BTreeMap<Controller, String>,
    /// Why the others are not.
    lacking: BTreeMap<Controller, String>,
    /// Where every hierarchy is mounted: others than we make groups in all of them.
    mounts: Vec<String>,
}

const PERIOD_US: u64 = 100_000;

impl Cgroups {
    /// Looks for controllers and makes our parent directory in each; what cannot be made is lacking.
    pub(crate) async fn discover(reach: &dyn Reach, site: &Site) -> Self {
        let mounts = text(reach, "/proc/self/mounts").await;
        let unified = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let unified = unified.filter(|w| w.len() >= 4).find(|w| w[2] == "cgroup2").map(|w| w[1].to_owned());
        let offered = match unified {
            Some(dir) => text(reach, &format!("{dir}/cgroup.controllers")).await,
            None => String::new(),
        };
        let mut found = Self { mounts: all_mounts(&mounts), ..Self::default() };
        for controller in Controller::ALL {
            match mount_of(&mounts, &offered, controller) {
                Some((version, mount)) => {
                    found.version = found.version.max(version);
                    match offer(reach, site, version, &mount, controller).await {
                        Ok(dir) => drop(found.usable.insert(controller, dir)),
                        Err(e) => drop(found.lacking.insert(controller, format!("{mount}: {e}"))),
                    }
                }
                None => drop(found.lacking.insert(controller, "no such controller is mounted".to_owned())),
            }
        }
        found
    }

    /// Whether limits of this kind can be set, or why not.
    pub(crate) fn can(&self, controller: Controller) -> Result<(), &str> {
        match self.lacking.get(&controller) {
            Some(why) => Err(why),
            None if self.usable.contains_key(&controller) => Ok(()),
            None => Err("not looked for"),
        }
    }

    /// The operations that put a cell under its limits, or the name of the first limit that cannot be set, and why.
    pub(crate) fn limit(&self, list: &mut List, name: &str, limits: &Limits) -> Result<(), String> {
        let mut dirs = Vec::new();
        for controller in limits.needs() {
            self.can(controller).map_err(|why| format!("no {} limit: {why}", controller.name()))?;
            let dir = self.usable.get(&controller).map(|dir| format!("{dir}/{name}"));
            dirs.extend(dir.map(|dir| (controller, dir)));
        }
        for (controller, dir) in &dirs {
            list.stage(stage::BEFORE).mkdir(dir, 0o755);
            match (controller, self.version) {
                (Controller::Memory, 2) => {
                    list.write(&format!("{dir}/memory.max"), &limit_text(limits.memory));
                    list.may_fail().write(&format!("{dir}/memory.swap.max"), "0");
                }
                (Controller::Memory, _) => {
                    list.write(&format!("{dir}/memory.limit_in_bytes"), &limit_text(limits.memory));
                    // Absent where the kernel was started without swap accounting.
                    list.may_be_absent()
                        .write(&format!("{dir}/memory.memsw.limit_in_bytes"), &limit_text(limits.memory));
                }
                (Controller::Pids, _) => {
                    list.write(&format!("{dir}/pids.max"), &limit_text(limits.pids));
                }
                (Controller::Cpu, version) => {
                    let quota = limits.nano_cpus.unwrap_or(0) / (1_000_000_000 / PERIOD_US);
                    let quota = quota.max(1000);
                    if version == 2 {
                        list.write(&format!("{dir}/cpu.max"), &format!("{quota} {PERIOD_US}"));
                    } else {
                        list.write(&format!("{dir}/cpu.cfs_quota_us"), &quota.to_string());
                    }
                }
            }
            list.stage(stage::BESIDE).write_pid(&format!("{dir}/cgroup.procs"));
            list.stage(stage::AFTER);
            if *controller == Controller::Memory {
                let file = if self.version == 2 { "memory.events" } else { "memory.oom_control" };
                list.report("oom", &format!("{dir}/{file}"));
            }
            list.rmdir(dir);
        }
        Ok(())
    }

    /// A name for the group of a cell that no other cell of this machine has; `sweep` finds it by the run.
    pub(crate) fn name(run: &RunId) -> String {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        format!("{run}.{}.{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
    }

    /// The path of a group below the mounts, for those who make it themselves.
    pub(crate) fn path(name: &str) -> String {
        format!("/{PARENT}/{name}")
    }

    /// The operations that remove a group which somebody else made, in whichever hierarchies, and left.
    pub(crate) fn remove(&self, list: &mut List, name: &str) {
        list.stage(stage::AFTER);
        for mount in &self.mounts {
            remove(list, &format!("{mount}/{PARENT}/{name}"));
        }
    }

    /// Removes groups whose names begin with `prefix` and that hold no process, and names them.
    pub(crate) async fn sweep(&self, reach: &dyn Reach, site: &Site, prefix: &str) -> Vec<String> {
        let mut removed = vec![];
        for parent in self.mounts.iter().map(|mount| format!("{mount}/{PARENT}")) {
            for (name, about) in reach.list(&parent).await.unwrap_or_default() {
                let dir = format!("{parent}/{name}");
                if about.is_dir() && name.starts_with(prefix) {
                    let mut list = List::new();
                    remove(list.stage(stage::BEFORE), &dir);
                    if perform(reach, site, list).await.is_ok() {
                        removed.push(dir);
                    }
                }
            }
        }
        removed.sort();
        removed
    }
}

/// How often the kernel killed for want of memory, from `memory.events` or `memory.oom_control`. None: it does not say.
pub(crate) fn oom_kills(report: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(report);
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|n| n.trim().parse().ok())
}

fn limit_text(number: Option<u64>) -> String {
    number.map_or_else(|| "max".to_owned(), |n| n.to_string())
}

fn all_mounts(mounts: &str) -> Vec<String> {
    let lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    lines.filter(|w| w.len() >= 3 && w[2].starts_with("cgroup")).map(|w| w[1].to_owned()).collect()
}

/// With version 2 crun puts the program one level deeper.
fn remove(list: &mut List, dir: &str) {
    list.may_be_absent().rmdir(&format!("{dir}/container")).may_be_absent().rmdir(dir);
}

/// Version and mount point of a controller. On a hybrid system version 1 has the controllers. `offered` are those of
/// version 2.
fn mount_of(mounts: &str, offered: &str, controller: Controller) -> Option<(u8, String)> {
    let lines = || mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).filter(|words| words.len() >= 4);
    let first = lines()
        .find(|w| w[2] == "cgroup" && w[3].split(',').any(|option| option == controller.name()))
        .map(|w| (1, w[1].to_owned()));
    first.or_else(|| {
        let unified = lines().find(|w| w[2] == "cgroup2").map(|w| w[1].to_owned())?;
        offered.split_whitespace().any(|name| name == controller.name()).then_some((2, unified))
    })
}

/// Makes our directory of a controller ready to have children with limits.
async fn offer(
    reach: &dyn Reach,
    site: &Site,
    version: u8,
    mount: &str,
    controller: Controller,
) -> Result<String, String> {
    let dir = format!("{mount}/{PARENT}");
    let enable = format!("+{}", controller.name());
    let mut list = List::new();
    list.stage(stage::BEFORE);
    if version == 2 {
        // Harmless where it is already so; where it is not permitted, the file in our own directory says so below.
        list.may_fail().write(&format!("{mount}/cgroup.subtree_control"), &enable);
    }
    list.mkdir(&dir, 0o755);
    if version == 2 {
        list.write(&format!("{dir}/cgroup.subtree_control"), &enable);
    }
    // Making a directory is what a cell will need; being able to see ours says nothing.
    let canary = format!("{dir}/canary-{}", ulid::Ulid::generate());
    list.mkdir(&canary, 0o755).rmdir(&canary);
    perform(reach, site, list).await.map(|()| dir)
}

/// Has the launcher perform operations of its own, for which it wants a program: itself, which says how it is used.
async fn perform(reach: &dyn Reach, site: &Site, mut list: List) -> Result<(), String> {
    let program = std::slice::from_ref(&site.launcher);
    list.stage(stage::INSIDE).stdin("/dev/null").exec(program, program, &[]);
    let job = Launch { reach, list: &list, deadline: Duration::from_secs(10), cap: 4096 };
    launch(&job).await.0.ended.map(drop).map_err(|fault| fault.cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_system_has_its_controllers_in_version_1() {
        let mounts = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n";
        assert_eq!(mount_of(mounts, "memory", Controller::Memory), Some((1, "/sys/fs/cgroup/memory".into())));
        assert_eq!(mount_of(mounts, "", Controller::Cpu), Some((1, "/sys/fs/cgroup/cpu,cpuacct".into())));
        let unified = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert_eq!(mount_of(unified, "cpu pids", Controller::Memory), None);
        assert_eq!(mount_of(unified, "cpu pids", Controller::Pids), Some((2, "/sys/fs/cgroup".into())));
        assert_eq!(mount_of("proc /proc proc rw 0 0\n", "", Controller::Memory), None);
    }

    #[test]
    fn the_count_of_kills_is_found_in_both_versions_files() {
        assert_eq!(oom_kills(b"oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3));
        assert_eq!(oom_kills(b"low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 0\n"), Some(1));
        assert_eq!(oom_kills(b"oom_kill_disable 0\nunder_oom 0\n"), None);
    }

    #[test]
    fn a_limit_that_cannot_be_set_is_refused_by_name_and_not_ignored() {
        let groups =
            Cgroups { lacking: BTreeMap::from([(Controller::Memory, "denied".to_owned())]), ..Default::default() };
        let limits = Limits { memory: Some(1), ..Limits::default() };
        assert_eq!(groups.limit(&mut List::new(), "x", &limits), Err("no memory limit: denied".to_owned()));
        assert_eq!(groups.limit(&mut List::new(), "x", &Limits::default()), Ok(()));
    }
}
