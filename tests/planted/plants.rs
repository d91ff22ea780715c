//! What is planted, and what has to be named for it.

/// One failing check with who is to be blamed.
pub struct Expected {
    pub check: &'static str,
    pub layer: &'static str,
    pub mechanism: &'static str,
}

/// A cause.
pub struct Plant {
    pub name: &'static str,
    /// Kinds of engines it is planted in.
    pub engines: &'static [&'static str],
    /// The `options` of the engine, as in a matrix.
    pub options: &'static str,
    /// A seccomp profile, where one is planted: the rules, everything else allowed.
    pub rules: &'static str,
    /// A command abicus itself is run by: what that lacks, the host lacks.
    pub inside: &'static [&'static str],
    /// By image (by cell, for hosts): what has to be named.
    pub expected: &'static [(&'static str, Expected)],
    /// Checks and prefixes of checks that suffer too.
    pub also: &'static [&'static str],
}

impl Plant {
    pub fn checks(&self) -> Vec<&'static str> {
        self.expected.iter().map(|(_, expected)| expected.check).collect()
    }

    pub fn touches(&self, check: &str) -> bool {
        self.checks().contains(&check) || self.also.iter().any(|prefix| check.starts_with(prefix))
    }
}

pub const NONE: Plant = Plant { name: "", engines: &[], options: "", rules: "", inside: &[], expected: &[], also: &[] };

const BOTH: &[&str] = &["built-in", "docker"];
pub const OWN: &[&str] = &["built-in"];
const DOCKER: &[&str] = &["docker"];
/// Podman with runc, and runtimes without an engine above them.
const RUNTIMES: &[&str] = &["podman", "runc", "crun"];

pub const fn by(check: &'static str, layer: &'static str, mechanism: &'static str) -> Expected {
    Expected { check, layer, mechanism }
}

const fn rule(check: &'static str) -> Expected {
    by(check, "engine", "seccomp-rule")
}

pub const ENGINES: &[Plant] = &[
    Plant {
        name: "clone3-eperm",
        engines: BOTH,
        rules: r#"{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}"#,
        expected: &[
            ("bookworm", rule("syscall.clone3")),
            ("bookworm", by("libc.thread.create", "engine × image", "seccomp-rule")),
            ("bullseye", rule("syscall.clone3")),
        ],
        also: &["libc.", "tool.", "kernel.clone3", "filter.clone3"],
        ..NONE
    },
    Plant {
        name: "hole",
        engines: BOTH,
        options: "hole",
        expected: &[("bookworm", rule("syscall.clone3")), ("bullseye", rule("filter.clone3"))],
        also: &["libc.", "tool.", "kernel.clone3"],
        ..NONE
    },
    Plant {
        name: "statx-eperm",
        engines: DOCKER,
        rules: r#"{"names": ["statx"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}"#,
        expected: &[("bookworm", rule("syscall.statx")), ("bookworm", rule("kernel.statx.root"))],
        also: &["libc.", "tool.", "fs."],
        ..NONE
    },
    Plant {
        name: "faccessat2-eperm",
        engines: OWN,
        rules: r#"{"names": ["faccessat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}"#,
        expected: &[("bookworm", rule("syscall.faccessat2")), ("bookworm", rule("kernel.faccessat2.root"))],
        also: &["libc.", "tool."],
        ..NONE
    },
    Plant {
        name: "fchmodat2-eperm",
        engines: DOCKER,
        rules: r#"{"names": ["fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}"#,
        expected: &[("bookworm", rule("syscall.fchmodat2")), ("bullseye", rule("kernel.fchmodat2.file"))],
        also: &["libc.", "tool."],
        ..NONE
    },
    Plant {
        name: "openat2-eperm",
        engines: OWN,
        rules: r#"{"names": ["openat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}"#,
        expected: &[("bookworm", rule("syscall.openat2")), ("bookworm", rule("kernel.openat2.beneath"))],
        ..NONE
    },
    Plant {
        name: "close-range-eperm",
        engines: OWN,
        rules: r#"{"names": ["close_range"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}"#,
        expected: &[("bookworm", rule("syscall.close_range")), ("bookworm", rule("kernel.close_range.close"))],
        also: &["libc.", "tool.", "kernel.close_range"],
        ..NONE
    },
    Plant {
        name: "timerfd-enosys",
        engines: BOTH,
        rules: r#"{"names": ["timerfd_create"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}"#,
        expected: &[("bookworm", rule("kernel.timerfd.expire"))],
        ..NONE
    },
    Plant {
        name: "inet6-refused",
        engines: BOTH,
        rules: r#"{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
            "args": [{"index": 0, "value": 10, "op": "SCMP_CMP_EQ"}]}"#,
        expected: &[("bookworm", rule("filter.socket.inet6")), ("bookworm", rule("net.family.inet6"))],
        also: &["net.", "libc.", "tool.", "proc.", "module.", "sysctl."],
        ..NONE
    },
    Plant {
        name: "mlock-killed",
        engines: BOTH,
        rules: r#"{"names": ["mlock"], "action": "SCMP_ACT_KILL"}"#,
        expected: &[("bookworm", rule("kernel.mlock.page"))],
        also: &["limit.reach.lock", "syscall.mlock"],
        ..NONE
    },
    Plant {
        name: "inotify-trapped",
        engines: OWN,
        rules: r#"{"names": ["inotify_init1"], "action": "SCMP_ACT_TRAP"}"#,
        expected: &[("bookworm", rule("fs.root.inotify"))],
        also: &["fs.tmp.inotify", "syscall.inotify"],
        ..NONE
    },
    Plant {
        name: "no-chown",
        engines: BOTH,
        options: r#"capabilities = { drop = ["CHOWN"] }"#,
        expected: &[
            ("bookworm", by("cap.chown", "engine", "capability")),
            ("bookworm", by("fs.root.chown", "engine", "capability")),
        ],
        also: &["fs.", "tool."],
        ..NONE
    },
    Plant {
        name: "no-setuid",
        engines: DOCKER,
        options: r#"capabilities = { drop = ["SETUID"] }"#,
        expected: &[
            ("bookworm", by("cap.setuid", "engine", "capability")),
            ("bookworm", by("kernel.credentials.drop", "engine", "capability")),
        ],
        also: &["kernel.", "tool.", "libc."],
        ..NONE
    },
    Plant {
        name: "no-chroot",
        engines: BOTH,
        options: r#"capabilities = { drop = ["SYS_CHROOT"] }"#,
        expected: &[
            ("bookworm", by("cap.sys_chroot", "engine", "capability")),
            ("bullseye", by("kernel.credentials.chroot", "engine", "capability")),
        ],
        also: &["kernel.", "tool."],
        ..NONE
    },
    Plant {
        name: "no-dac-override",
        engines: OWN,
        options: r#"capabilities = { drop = ["DAC_OVERRIDE"] }"#,
        expected: &[("bookworm", by("cap.dac_override", "engine", "capability"))],
        also: &["fs.", "tool.", "dev.", "proc.", "libc.", "limit."],
        ..NONE
    },
    Plant {
        name: "no-kill",
        engines: DOCKER,
        options: r#"capabilities = { drop = ["KILL"] }"#,
        expected: &[("bookworm", by("cap.kill", "engine", "capability"))],
        also: &["kernel."],
        ..NONE
    },
    Plant {
        name: "read-only",
        engines: BOTH,
        options: "read_only = true",
        expected: &[("bookworm", by("fs.root.write", "engine", "read-only"))],
        also: &["fs.", "libc.", "tool.", "kernel.", "net."],
        ..NONE
    },
    Plant {
        name: "few-files",
        engines: BOTH,
        options: "ulimits = { nofile = 64 }",
        expected: &[
            ("bookworm", by("limit.nofile.soft", "engine", "limit")),
            ("bullseye", by("limit.reach.files", "engine", "limit")),
        ],
        also: &["limit.", "kernel.", "libc.", "tool."],
        ..NONE
    },
    Plant {
        name: "small-files",
        engines: OWN,
        options: "ulimits = { fsize = 65536 }",
        expected: &[("bookworm", by("limit.fsize.soft", "engine", "limit"))],
        also: &["limit.", "kernel.", "libc.", "tool.", "fs.", "shm."],
        ..NONE
    },
    Plant {
        name: "little-time",
        engines: DOCKER,
        options: "ulimits = { cpu = 30 }",
        expected: &[("bookworm", by("limit.cpu.soft", "engine", "limit"))],
        also: &["limit.", "kernel.", "libc.", "tool.", "shm."],
        ..NONE
    },
    Plant {
        name: "few-processes",
        engines: BOTH,
        options: "pids_limit = 20",
        expected: &[("bookworm", by("limit.reach.threads", "engine", "limit"))],
        also: &["limit.", "kernel.", "libc.", "tool.", "cgroup."],
        ..NONE
    },
    Plant {
        name: "masked-proc-sys",
        engines: OWN,
        options: r#"tmpfs = ["/proc/sys"]"#,
        expected: &[
            ("bookworm", by("sysctl.kernel.ostype", "engine", "masked-path")),
            ("bookworm", by("proc.random.uuid", "engine", "masked-path")),
        ],
        also: &["sys.", "sysctl.", "proc.", "lsm.", "kernel.", "libc.", "tool.", "net.", "ns."],
        ..NONE
    },
    Plant {
        name: "no-terminals",
        engines: OWN,
        options: r#"tmpfs = ["/dev/pts"]"#,
        expected: &[
            ("bookworm", by("dev.pts.mounted", "engine", "device")),
            ("bookworm", by("dev.ptmx.pair", "engine", "device")),
        ],
        also: &["dev.", "libc.tty", "tool."],
        ..NONE
    },
    Plant {
        name: "no-fowner",
        engines: RUNTIMES,
        options: r#"capabilities = { drop = ["FOWNER"] }"#,
        expected: &[("bookworm", by("cap.fowner", "engine", "capability"))],
        // Debian 12's crun has a libseccomp that does not know fchmodat2 and refuses it.
        also: &["fs.", "tool.", "kernel.", "libc.", "syscall.fchmodat2"],
        ..NONE
    },
    Plant {
        name: "timerfd-enosys-elsewhere",
        engines: RUNTIMES,
        rules: r#"{"names": ["timerfd_create"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}"#,
        expected: &[("bullseye", rule("kernel.timerfd.expire"))],
        ..NONE
    },
    Plant {
        name: "read-only-elsewhere",
        engines: RUNTIMES,
        options: "read_only = true",
        expected: &[("bullseye", by("fs.root.write", "engine", "read-only"))],
        also: &["fs.", "libc.", "tool.", "kernel.", "net.", "syscall.fchmodat2"],
        ..NONE
    },
];

pub const PAIRS: &[Plant] = &[
    Plant {
        name: "clone3-eperm-and-no-chown",
        engines: BOTH,
        rules: r#"{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}"#,
        options: r#"capabilities = { drop = ["CHOWN"] }"#,
        expected: &[
            ("bookworm", by("libc.thread.create", "engine × image", "seccomp-rule")),
            ("bookworm", by("cap.chown", "engine", "capability")),
            ("bullseye", by("fs.root.chown", "engine", "capability")),
        ],
        also: &["libc.", "tool.", "kernel.clone3", "filter.clone3", "fs.", "syscall.clone3"],
        ..NONE
    },
    Plant {
        name: "read-only-and-few-files",
        engines: OWN,
        options: "read_only = true, ulimits = { nofile = 64 }",
        expected: &[
            ("bookworm", by("fs.root.write", "engine", "read-only")),
            ("bookworm", by("limit.reach.files", "engine", "limit")),
        ],
        also: &["fs.", "libc.", "tool.", "kernel.", "net.", "limit."],
        ..NONE
    },
    Plant {
        name: "statx-eperm-and-no-chroot",
        engines: OWN,
        rules: r#"{"names": ["statx"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}"#,
        options: r#"capabilities = { drop = ["SYS_CHROOT"] }"#,
        expected: &[
            ("bookworm", rule("syscall.statx")),
            ("bookworm", by("kernel.credentials.chroot", "engine", "capability")),
        ],
        also: &["libc.", "tool.", "fs.", "kernel.", "cap.sys_chroot"],
        ..NONE
    },
    Plant {
        name: "timerfd-enosys-and-little-time",
        engines: DOCKER,
        rules: r#"{"names": ["timerfd_create"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}"#,
        options: "ulimits = { cpu = 30 }",
        expected: &[("bookworm", rule("kernel.timerfd.expire")), ("bookworm", by("limit.cpu.soft", "engine", "limit"))],
        also: &["limit.", "kernel.", "libc.", "tool.", "shm."],
        ..NONE
    },
];

pub const IMAGES: &[Plant] = &[
    Plant { name: "no-loader", expected: &[("no-loader", by("libc.start", "image", "loader"))], also: &[], ..NONE },
    Plant {
        name: "abi-note",
        expected: &[("abi-note", by("ld.abi-note.libraries", "image", "abi-note"))],
        also: &["ld."],
        ..NONE
    },
    Plant {
        name: "isa-note",
        expected: &[("isa-note", by("ld.dlopen.libm", "image", "cpu-level"))],
        also: &["ld.", "libc."],
        ..NONE
    },
    Plant {
        name: "exec-stack",
        expected: &[("exec-stack", by("ld.dlopen.exec-stack", "image", "exec-stack"))],
        also: &["ld.", "libc."],
        ..NONE
    },
    Plant {
        name: "exec-stack-library",
        expected: &[("exec-stack-library", by("ld.dlopen.libm", "image", "exec-stack"))],
        also: &["ld.", "libc."],
        ..NONE
    },
    Plant {
        name: "no-libm",
        expected: &[("no-libm", by("ld.dlopen.libm", "image", "file-missing"))],
        also: &["ld.", "libc."],
        ..NONE
    },
    Plant {
        name: "no-root-user",
        expected: &[("no-root-user", by("libc.user.root", "image", "file-missing"))],
        also: &["libc.user", "tool."],
        ..NONE
    },
    Plant {
        name: "no-root-group",
        expected: &[("no-root-group", by("libc.user.group", "image", "file-missing"))],
        also: &["libc.user", "tool.", "libc.tty"],
        ..NONE
    },
];

pub const HOSTS: &[Plant] = &[
    Plant {
        name: "host-few-files",
        inside: &["prlimit", "--nofile=400:400"],
        expected: &[
            ("local:native:-", by("limit.nofile.soft", "host", "limit")),
            ("local:built-in:scratch", by("limit.nofile.soft", "host", "limit")),
        ],
        ..NONE
    },
    Plant {
        name: "host-no-low-ports",
        inside: &["setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"],
        expected: &[
            ("local:native:-", by("cap.net_bind_service", "host", "capability")),
            ("local:built-in:scratch", by("cap.net_bind_service", "host", "capability")),
        ],
        ..NONE
    },
    Plant {
        name: "host-no-user-namespaces",
        inside: &[
            "unshare",
            "--user",
            "--map-root-user",
            "sh",
            "-c",
            "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"",
            "sh",
        ],
        expected: &[
            ("local:native:-", by("sysctl.user.max_user_namespaces", "host", "sysctl")),
            ("local:native:-", by("kernel.unshare.user", "host", "sysctl")),
        ],
        ..NONE
    },
    Plant {
        name: "host-no-full-device",
        inside: &[
            "unshare",
            "--mount",
            "sh",
            "-c",
            "mount -t tmpfs none /mnt && mkdir /mnt/pts /mnt/shm && cp -a /dev/null /dev/zero /dev/random /dev/urandom \\
             /dev/tty /mnt && mount --bind /dev/pts /mnt/pts && mount -t tmpfs none /mnt/shm && \\
             ln -s /proc/self/fd /mnt/fd && ln -s pts/ptmx /mnt/ptmx && mount --rbind /mnt /dev && exec \"$@\"",
            "sh",
        ],
        expected: &[("local:native:-", by("dev.full.full", "host", "device"))],
        ..NONE
    },
    Plant {
        name: "host-loopback-down",
        inside: &["unshare", "--net"],
        expected: &[("local:native:-", by("net.loopback.tcp4", "host", "network"))],
        ..NONE
    },
];
