//! From settings to the list of operations that makes a cell: which mounts, names, capabilities, and in which order.
//!
//! In: settings, what the host can do, the root, the program. Out: a list for the launcher. Pure; the order of things is
//! the point here, and each part says where it comes from. What docker does unasked is done here too.

use super::abilities::{Identity, Maps};
use super::capabilities::Capabilities;
use super::list::{List, stage};
use super::seccomp::{Surroundings, compile};
use super::settings::{MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, Settings, refused};
use crate::engine::PAYLOAD_DIR;
use crate::fault::Fault;

/// What the root of a cell is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Root {
    /// Nothing but what the engine itself makes.
    Empty,
    /// A directory that is only read: changes go to memory and are gone with the cell.
    Tree(String),
}

/// All that one list is made from.
pub(crate) struct Cell<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) identity: &'a Identity,
    pub(crate) root: &'a Root,
    /// See [`filter`].
    pub(crate) filter: Option<&'a [u8]>,
    /// Uid and gid of the program, names looked up.
    pub(crate) user: (u32, u32),
    /// An empty directory on the host to mount on, out of everyone's sight.
    pub(crate) mount_point: &'a str,
    pub(crate) payload: &'a str,
    pub(crate) argv: &'a [String],
    /// Device nodes of the host that a privileged cell gets: path, mode with type, number.
    pub(crate) host_devices: &'a [(String, u64, u64)],
    /// The host's resolv.conf, for cells with the host's network.
    pub(crate) resolv_conf: &'a [u8],
}

pub(crate) const CLONE_NEWNS: u64 = 0x2_0000;
pub(crate) const CLONE_NEWCGROUP: u64 = 0x200_0000;
pub(crate) const CLONE_NEWUTS: u64 = 0x400_0000;
pub(crate) const CLONE_NEWIPC: u64 = 0x800_0000;
pub(crate) const CLONE_NEWUSER: u64 = 0x1000_0000;
pub(crate) const CLONE_NEWPID: u64 = 0x2000_0000;
pub(crate) const CLONE_NEWNET: u64 = 0x4000_0000;

pub(crate) const MS_BIND: u64 = 4096;
pub(crate) const MS_REC: u64 = 16384;
pub(crate) const MS_PRIVATE: u64 = 1 << 18;
const MS_STRICTATIME: u64 = 1 << 24;
const MNT_DETACH: u64 = 2;
pub(crate) const O_PATH: u64 = 0o10000000;
pub(crate) const O_DIRECTORY: u64 = if cfg!(target_arch = "x86_64") { 0o200000 } else { 0o40000 };
const S_IFCHR: u64 = 0o020000;

/// Slots of the launcher.
const TREE: u64 = 0;
const PAYLOAD: u64 = 1;
const OLD_ROOT: u64 = 2;
const HOST_SYS: u64 = 3;
const ETC: u64 = 4;
const DEVICES: u64 = 10;

pub(crate) const HOSTNAME: &str = "abicus";
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What may be written into a cell's root before the disk, that is memory, is full.
pub(crate) const UPPER_SIZE: &str = "size=50%";

/// Docker 20.10's default device nodes: name, mode, major, minor.
const NODES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Docker 20.10's default masked and read-only paths: moby/oci/defaults.go.
pub(crate) const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
pub(crate) const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub(crate) const HOSTS: &[u8] =
    b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// The list for a cell, up to its limits, which `cgroup` adds.
pub(crate) fn list(cell: &Cell) -> Result<List, Fault> {
    let mut list = List::new();
    namespaces(&mut list, cell);
    list.stage(stage::INSIDE).setsid().umask(0);
    become_root(&mut list, cell.identity);
    if cell.identity.cgroup_namespaces {
        list.unshare(CLONE_NEWCGROUP);
    }
    root(&mut list, cell);
    kernel_mounts(&mut list, cell);
    devices(&mut list, cell);
    own_files(&mut list, cell);
    leave_the_host(&mut list, cell);
    confine(&mut list, cell)?;
    execute(&mut list, cell);
    Ok(list)
}

fn namespaces(list: &mut List, cell: &Cell) {
    let mut flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC;
    if !cell.settings.host_network {
        flags |= CLONE_NEWNET;
    }
    identity_maps(list, cell.identity, flags);
}

/// Clones with these flags, and a user namespace with its maps where the identity has one.
pub(crate) fn identity_maps(list: &mut List, identity: &Identity, flags: u64) {
    let flags = if identity.maps == Maps::None { flags } else { flags | CLONE_NEWUSER };
    list.stage(stage::BEFORE).clone_flags(flags).stage(stage::BESIDE);
    match &identity.maps {
        Maps::None => {}
        Maps::Own { uid, gid } => {
            // Linux 3.19 wants groups denied first; before, the file does not exist.
            list.may_be_absent().write_proc("setgroups", "deny");
            list.write_proc("uid_map", &format!("0 {uid} 1\n"));
            list.write_proc("gid_map", &format!("0 {gid} 1\n"));
        }
        Maps::All => {
            list.write_proc("uid_map", "0 0 4294967295\n").write_proc("gid_map", "0 0 4294967295\n");
        }
        Maps::Ranges { newuidmap, newgidmap, uids, gids } => {
            list.helper(newuidmap, uids).helper(newgidmap, gids);
        }
    }
}

/// The first process of a user namespace has all capabilities and, until it takes one, no identity.
pub(crate) fn become_root(list: &mut List, identity: &Identity) {
    match identity.maps {
        Maps::None | Maps::Own { .. } => {}
        Maps::All | Maps::Ranges { .. } => {
            list.groups(&[]).ids(0, 0);
        }
    }
}

/// The new root, and the process in it; the host stays reachable through slots until `leave_the_host`.
///
/// Nothing of the image is resolved before the root has changed, so no symlink in it can lead to the host.
fn root(list: &mut List, cell: &Cell) {
    list.mount("", "/", "", MS_REC | MS_PRIVATE, "");
    list.open(OLD_ROOT, "/", O_PATH | O_DIRECTORY);
    list.open(PAYLOAD, cell.payload, O_PATH | O_DIRECTORY);
    if sys_from_host(cell) {
        list.open(HOST_SYS, "/sys", O_PATH | O_DIRECTORY);
    }
    for (slot, (host, _)) in (DEVICES..).zip(bound_devices(cell)) {
        list.open(slot, &host, O_PATH);
    }
    if let Root::Tree(tree) = cell.root {
        list.open(TREE, tree, O_PATH | O_DIRECTORY);
    }
    list.mount("tmpfs", cell.mount_point, "tmpfs", 0, &format!("mode=755,{UPPER_SIZE}"));
    list.chdir(cell.mount_point);
    list.file("hosts", HOSTS).file("hostname", format!("{HOSTNAME}\n").as_bytes());
    let no_network: &[u8] = b"# this cell has no network\n";
    list.file("resolv.conf", if cell.settings.host_network { cell.resolv_conf } else { no_network });
    for (slot, name) in (ETC..).zip(["hosts", "hostname", "resolv.conf"]) {
        list.open(slot, name, O_PATH);
    }
    list.mkdir("root", 0o755);
    // Scratch too: an overlay answers some questions otherwise than a tmpfs does, and docker's scratch is one.
    let lower = match cell.root {
        Root::Empty => "lower".to_owned(),
        Root::Tree(_) => List::slot(TREE),
    };
    for dir in ["lower", "upper", "work"] {
        list.mkdir(dir, 0o755);
    }
    list.mount("overlay", "root", "overlay", 0, &overlay_data(cell.identity, &lower));
    list.chdir("root").pivot().chdir("/");
}

/// What roots of cells are kept on, as facts: under commands, too.
pub(crate) const STORAGE: [(&str, &str); 2] = [("engine.storage", "overlay"), ("engine.storage.backing", "tmpfs")];

/// `userxattr`, Linux 5.11: without it overlayfs wants trusted attributes, which no user namespace may set.
pub(crate) fn overlay_data(identity: &Identity, lower: &str) -> String {
    let userxattr = if identity.maps == Maps::None { "" } else { ",userxattr" };
    format!("lowerdir={lower},upperdir=upper,workdir=work{userxattr}")
}

/// A user namespace mounts sysfs only together with a network namespace of its own.
fn sys_from_host(cell: &Cell) -> bool {
    cell.settings.host_network && cell.identity.maps != Maps::None
}

/// runc's default mounts, with docker's flags.
fn kernel_mounts(list: &mut List, cell: &Cell) {
    let quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    let sys_flags = if cell.settings.privileged { quiet } else { quiet | MS_RDONLY };
    list.mkdirs("/proc").mount("proc", "/proc", "proc", quiet, "");
    list.mkdirs("/dev").mount("tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
    list.mkdir("/dev/pts", 0o755);
    // A group that is not mapped cannot own terminals.
    let group = if matches!(cell.identity.maps, Maps::Own { .. }) { "" } else { ",gid=5" };
    let pts = format!("newinstance,ptmxmode=0666,mode=0620{group}");
    list.mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, &pts);
    list.mkdirs("/sys");
    if sys_from_host(cell) {
        list.mount(&List::slot(HOST_SYS), "/sys", "", MS_BIND | MS_REC, "").remount("/sys", sys_flags);
    } else {
        list.mount("sysfs", "/sys", "sysfs", sys_flags, "");
    }
    list.mkdir("/dev/mqueue", 0o755).may_fail().mount("mqueue", "/dev/mqueue", "mqueue", quiet, "");
    let shm = format!("mode=1777,size={}", cell.settings.shm_size);
    list.mkdir("/dev/shm", 0o755).mount("shm", "/dev/shm", "tmpfs", quiet, &shm);
    control_groups(list, cell, sys_flags);
    for tmpfs in &cell.settings.tmpfs {
        list.mkdirs(&tmpfs.path).mount("tmpfs", &tmpfs.path, "tmpfs", tmpfs.flags, &tmpfs.data);
    }
}

fn control_groups(list: &mut List, cell: &Cell, flags: u64) {
    // Without a namespace of its own a cell would see, and with version 1 mount, the host's whole tree.
    if !cell.identity.cgroup_namespaces || sys_from_host(cell) {
        return;
    }
    let at = "/sys/fs/cgroup";
    match cell.identity.cgroup_hierarchies.as_slice() {
        [] => {}
        [only] if only == "cgroup2" => {
            list.may_fail().mount("cgroup", at, "cgroup2", flags, "");
        }
        many => {
            list.may_fail().mount("tmpfs", at, "tmpfs", flags & !MS_RDONLY, "mode=755");
            for options in many.iter().filter(|options| *options != "cgroup2") {
                let name = options.strip_prefix("name=").unwrap_or(options);
                list.may_fail().mkdir(&format!("{at}/{name}"), 0o755);
                list.may_fail().mount("cgroup", &format!("{at}/{name}"), "cgroup", flags, options);
            }
            if flags & MS_RDONLY != 0 {
                list.may_fail().remount(at, MS_RDONLY);
            }
        }
    }
}

/// Nodes that have to be bound from the host: all in a user namespace, where mknod is refused; else those asked for.
fn bound_devices(cell: &Cell) -> Vec<(String, String)> {
    let mut bound = vec![];
    if cell.identity.maps != Maps::None {
        bound.extend(NODES.iter().map(|(name, ..)| (format!("/dev/{name}"), format!("/dev/{name}"))));
    }
    bound.extend(cell.settings.devices.iter().cloned());
    bound
}

fn devices(list: &mut List, cell: &Cell) {
    if cell.identity.maps == Maps::None {
        for (name, major, minor) in NODES {
            list.mknod(&format!("/dev/{name}"), S_IFCHR | 0o666, major << 8 | minor);
        }
        for (path, mode, number) in cell.host_devices.iter().filter(|_| cell.settings.privileged) {
            if let Some((parent, _)) = path.rsplit_once('/') {
                list.may_fail().mkdirs(parent);
            }
            list.may_fail().mknod(path, *mode, *number);
        }
    }
    for (slot, (_, inside)) in (DEVICES..).zip(bound_devices(cell)) {
        if let Some((parent, _)) = inside.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
            list.mkdirs(parent);
        }
        list.touch(&inside).mount(&List::slot(slot), &inside, "", MS_BIND, "");
    }
    for (text, path) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("pts/ptmx", "/dev/ptmx"),
    ] {
        list.symlink(text, path);
    }
    // As runc: a kernel without CONFIG_PROC_KCORE has nothing to link to.
    if cell.identity.has_kcore {
        list.symlink("/proc/kcore", "/dev/core");
    }
}

/// The three files docker binds over the image's own, and the payload.
fn own_files(list: &mut List, cell: &Cell) {
    list.mkdirs("/etc");
    for (slot, name) in (ETC..).zip(["hosts", "hostname", "resolv.conf"]) {
        let path = format!("/etc/{name}");
        list.touch(&path).mount(&List::slot(slot), &path, "", MS_BIND, "");
    }
    list.mkdirs(PAYLOAD_DIR).mount(&List::slot(PAYLOAD), PAYLOAD_DIR, "", MS_BIND, "");
    list.remount(PAYLOAD_DIR, MS_RDONLY | MS_NOSUID | MS_NODEV);
    if cell.settings.read_only {
        list.remount("/", MS_RDONLY);
    }
}

fn leave_the_host(list: &mut List, cell: &Cell) {
    list.fchdir(OLD_ROOT).unmount(".", MNT_DETACH).chdir("/");
    if !cell.settings.host_network {
        list.loopback();
        // What docker sets since 20.10.
        list.may_fail().write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
        if cell.identity.maps == Maps::None {
            list.may_fail().write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
        }
    }
    list.hostname(HOSTNAME).stdin("/dev/null");
}

fn confine(list: &mut List, cell: &Cell) -> Result<(), Fault> {
    if !cell.settings.privileged {
        for path in READ_ONLY {
            list.may_be_absent().read_only(path);
        }
        for path in MASKED {
            list.may_be_absent().mask(path);
        }
    }
    for (resource, soft, hard) in &cell.settings.ulimits {
        list.rlimit(*resource, *soft, *hard);
    }
    let capabilities = permitted(cell.settings, cell.identity);
    list.bound(capabilities.0);
    let (uid, gid) = cell.user;
    if uid != 0 {
        // As runc: else a program could not open its own /dev/stdout.
        for fd in [1, 2] {
            list.may_fail().chown(&format!("/proc/self/fd/{fd}"), uid, gid);
        }
    }
    // As runc without no_new_privs: the filter goes in while there still is the capability for it.
    if let Some(filter) = cell.filter {
        list.seccomp(filter);
    }
    if matches!(cell.identity.maps, Maps::Own { .. }) {
        // Groups cannot be changed where they had to be denied for the map's sake.
        if (uid, gid) != (0, 0) {
            return Err(refused("option `user`: only one user exists in this user namespace")
                .hint("install uidmap and give yourself a range in /etc/subuid and /etc/subgid, or run as root"));
        }
    } else {
        // Docker since 20.10.18: the primary group is a supplementary one too (CVE-2022-36109).
        list.groups(&[gid]).ids(uid, gid);
    }
    list.caps(capabilities.0).may_fail().ambient(0).umask(0o022);
    Ok(())
}

/// What the settings ask for and this host can give.
pub(crate) fn permitted(settings: &Settings, identity: &Identity) -> Capabilities {
    Capabilities(settings.capabilities.0 & identity.capabilities.0)
}

/// The seccomp filter of every cell with these settings: it costs as much to compile as the rest of a list together.
pub(crate) fn filter(settings: &Settings, identity: &Identity) -> Result<Option<Vec<u8>>, Fault> {
    let around = Surroundings { capabilities: permitted(settings, identity), kernel: identity.kernel };
    let program = settings.seccomp.as_ref().map(|profile| compile(profile, &around));
    program.transpose().map_err(|e| refused(format!("option `seccomp`: {e}")))
}

fn execute(list: &mut List, cell: &Cell) {
    let name = cell.argv.first().map_or("", String::as_str);
    let paths: Vec<String> = if name.contains('/') {
        vec![name.to_owned()]
    } else {
        PATH.split(':').map(|dir| format!("{dir}/{name}")).collect()
    };
    let home = if cell.user.0 == 0 { "/root" } else { "/" };
    let environment = [format!("PATH={PATH}"), format!("HOSTNAME={HOSTNAME}"), format!("HOME={home}")];
    list.exec(&paths, cell.argv, &environment);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::builtin::settings::BUILT_IN;

    fn identity(maps: Maps) -> Identity {
        Identity {
            maps,
            capabilities: Capabilities::ALL,
            kernel: (6, 1),
            cgroup_namespaces: true,
            has_kcore: true,
            cgroup_hierarchies: vec!["cgroup2".to_owned()],
        }
    }

    /// What a list does, for people, in order.
    fn steps(options: &str, maps: Maps, user: (u32, u32)) -> Result<Vec<String>, Fault> {
        let settings = Settings::new(&toml::from_str(options).unwrap(), None, &BUILT_IN)?;
        let identity = identity(maps);
        let filter = filter(&settings, &identity)?;
        let cell = Cell {
            settings: &settings,
            identity: &identity,
            root: &Root::Tree("/image".to_owned()),
            filter: filter.as_deref(),
            user,
            mount_point: "/mnt",
            payload: "/payload",
            argv: &["/.abicus/kernel".to_owned()],
            host_devices: &[("/dev/sda".to_owned(), 0o060_660, 0x800)],
            resolv_conf: b"",
        };
        let list = list(&cell)?;
        let all = (0..).map(|at| list.says(at).0.to_owned());
        Ok(all.take_while(|step| step != "making the first process").collect())
    }

    fn at(steps: &[String], step: &str) -> usize {
        steps.iter().position(|s| s.starts_with(step)).unwrap_or_else(|| panic!("no `{step}` in {steps:#?}"))
    }

    #[test]
    fn no_path_of_the_image_is_used_before_the_root_has_changed() {
        let steps = steps("tmpfs = ['/t']", Maps::None, (0, 0)).unwrap();
        let pivot = at(&steps, "changing the root");
        for step in ["mounting proc", "mounting tmpfs on /dev", "making /etc/hosts", "mounting tmpfs on /t"] {
            assert!(at(&steps, step) > pivot, "{step}");
        }
        assert!(at(&steps, "opening /payload") < pivot);
        assert!(at(&steps, "unmounting .") > at(&steps, "mounting /proc/self/fd/301 on /.abicus"));
    }

    #[test]
    fn what_confines_a_cell_comes_after_everything_it_would_forbid() {
        let steps = steps("", Maps::None, (0, 0)).unwrap();
        let filter = at(&steps, "loading a seccomp filter");
        assert!(at(&steps, "masking /proc/kcore") < filter && at(&steps, "unmounting .") < filter);
        assert!(filter < at(&steps, "setting capabilities"));
        assert_eq!(at(&steps, "executing"), steps.len() - 1);
    }

    #[test]
    fn a_user_namespace_binds_the_nodes_it_may_not_make() {
        let steps = steps("", Maps::Own { uid: 5, gid: 6 }, (0, 0)).unwrap();
        assert!(at(&steps, "opening /dev/null") < at(&steps, "changing the root"));
        assert!(!steps.iter().any(|step| step.starts_with("making device")), "{steps:#?}");
        assert!(steps.contains(&"writing 0 5 1 to uid_map".to_owned()));
    }

    #[test]
    fn a_namespace_with_one_user_has_no_other() {
        let fault = steps("", Maps::Own { uid: 5, gid: 5 }, (1, 1)).unwrap_err();
        assert!(fault.cause.contains("only one user") && fault.hint.is_some(), "{fault}");
    }

    #[test]
    fn a_privileged_cell_has_the_hosts_devices_and_nothing_masked() {
        let steps = steps("privileged = true", Maps::None, (0, 0)).unwrap();
        assert!(steps.contains(&"making device /dev/sda".to_owned()));
        for lacking in ["masking", "making /proc/sys read-only", "loading a seccomp filter"] {
            assert!(!steps.iter().any(|step| step.starts_with(lacking)), "{lacking}");
        }
    }
}
