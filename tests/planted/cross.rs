//! Pairs of causes in two layers of one cell: each has to be blamed for its own, and a twin that has only one of them for
//! nothing else. And an old processor, on which an image fails that is fine elsewhere.

use super::plants::{Expected, NONE, OWN, Plant, by};
use super::trees::Trees;

/// In an engine and an image; the image is named with what has to be said.
pub const ENGINE_AND_IMAGE: &[Plant] = &[
    Plant {
        name: "no-chown-and-no-root-user",
        engines: OWN,
        options: r#"capabilities = { drop = ["CHOWN"] }"#,
        expected: &[
            ("no-root-user", by("cap.chown", "engine", "capability")),
            ("no-root-user", by("libc.user.root", "image", "file-missing")),
        ],
        also: &["fs.", "tool.", "libc.user"],
        ..NONE
    },
    Plant {
        name: "few-files-and-abi-note",
        engines: OWN,
        options: "ulimits = { nofile = 64 }",
        expected: &[
            ("abi-note", by("limit.nofile.soft", "engine", "limit")),
            ("abi-note", by("ld.abi-note.libraries", "image", "abi-note")),
        ],
        also: &["limit.", "kernel.", "libc.", "tool.", "ld."],
        ..NONE
    },
    Plant {
        name: "read-only-and-exec-stack",
        engines: OWN,
        options: "read_only = true",
        expected: &[
            ("exec-stack-library", by("fs.root.write", "engine", "read-only")),
            ("exec-stack-library", by("ld.dlopen.libm", "image", "exec-stack")),
        ],
        also: &["fs.", "libc.", "tool.", "kernel.", "net.", "ld."],
        ..NONE
    },
    Plant {
        name: "mlock-killed-and-no-libm",
        engines: OWN,
        rules: r#"{"names": ["mlock"], "action": "SCMP_ACT_KILL"}"#,
        expected: &[
            ("no-libm", by("kernel.mlock.page", "engine", "seccomp-rule")),
            ("no-libm", by("ld.dlopen.libm", "image", "file-missing")),
        ],
        also: &["limit.reach.lock", "syscall.mlock", "ld.", "libc."],
        ..NONE
    },
];

/// In a host and an engine, or a host and an image, by cell.
pub const HOST_AND_MORE: &[Plant] = &[
    Plant {
        name: "host-few-files-and-no-chown",
        inside: &["prlimit", "--nofile=400:400"],
        options: r#"capabilities = { drop = ["CHOWN"] }"#,
        expected: &[
            ("local:planted:scratch", by("limit.nofile.soft", "host", "limit")),
            ("local:planted:scratch", by("cap.chown", "engine", "capability")),
        ],
        ..NONE
    },
    Plant {
        name: "host-no-low-ports-and-read-only",
        inside: &["setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"],
        options: "read_only = true",
        expected: &[
            ("local:planted:scratch", by("cap.net_bind_service", "host", "capability")),
            ("local:planted:scratch", by("fs.root.write", "engine", "read-only")),
        ],
        ..NONE
    },
    Plant {
        name: "host-few-files-and-no-root-user",
        inside: &["prlimit", "--nofile=400:400"],
        expected: &[
            ("local:built-in:no-root-user", by("limit.nofile.soft", "host", "limit")),
            ("local:built-in:no-root-user", by("libc.user.root", "image", "file-missing")),
        ],
        ..NONE
    },
];

/// A rule of the profile that is in force on old kernels only, as docker's for ptrace is (moby, seccomp `minKernel`): it takes
/// both, this kind of host and this engine. One host is the machine as a program sees it by `setarch --uname-2.6`, the other one
/// is the machine itself, by SSH.
pub const HOST_AND_ENGINE: Plant = Plant {
    name: "rule-for-old-kernels",
    inside: &["setarch", "--uname-2.6"],
    rules: r#"{"names": ["timerfd_create"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {"minKernel": "3.0"}}"#,
    expected: &[("old:planted:scratch", by("kernel.timerfd.expire", "host × engine", "seccomp-rule"))],
    ..NONE
};

/// Cells of that run that lack one of both.
pub const HOST_AND_ENGINE_TWINS: [&str; 5] =
    ["new:planted:scratch", "old:built-in:scratch", "new:built-in:scratch", "old:native:-", "new:native:-"];

/// An image that needs what the old processor has not, and this machine has: both together. One that needs more than the guest
/// could ever have, and runs nowhere else: the image.
pub const GUEST: &[(&str, Expected)] = &[
    ("old-cpu:built-in:x86-64-v3", by("ld.dlopen.libm", "host × image", "cpu-level")),
    ("old-cpu:built-in:x86-64-v4", by("ld.dlopen.libm", "image", "cpu-level")),
];

/// Cells of that run in which nothing is planted.
pub const GUEST_TWINS: [&str; 3] = ["old-cpu:built-in:tiny", "local:built-in:tiny", "local:built-in:x86-64-v3"];

pub fn guest_matrix(trees: &Trees) -> String {
    let mut text = r#"
[matrix]
name = "planted processor"
[defaults]
timeout = "300s"
[[host]]
name = "local"
[[host]]
name = "old-cpu"
vm = { kernel = { suite = "bookworm" }, cpu = "Nehalem" }
[[engine]]
name = "native"
kind = "native"
[[engine]]
name = "built-in"
kind = "built-in"
[[exclude]]
cells = "local:*:x86-64-v4"
reason = "some machines have it"
"#
    .to_owned();
    let tiny = [("tiny", &trees.images["tiny"])];
    for (name, tree) in tiny.into_iter().chain(trees.levels.iter().map(|(name, tree)| (*name, tree))) {
        text += &format!("[[image]]\nname = \"{name}\"\nrootfs = \"{}\"\n", tree.display());
    }
    text
}

/// What docker's own AppArmor profile denies, planted where there is AppArmor: in a guest whose kernel has it.
pub const APPARMOR: (&str, Expected) = ("apparmor:docker:scratch", by("kernel.unshare.all_in_user", "engine", "lsm"));

/// Cells of that run without the profile.
pub const APPARMOR_TWINS: [&str; 3] =
    ["apparmor:docker-without:scratch", "apparmor:native:-", "apparmor:control.no-policy:scratch"];

pub const APPARMOR_MATRIX: &str = r#"
[matrix]
name = "planted AppArmor"
[defaults]
timeout = "300s"
[[host]]
name = "apparmor"
vm = { disk = { suite = "bookworm", include = ["apparmor"] } }
[[engine]]
name = "native"
kind = "native"
[[engine]]
name = "docker"
kind = "docker"
options = { seccomp = "unconfined", capabilities = { add = ["SYS_ADMIN"] } }
[[engine]]
name = "docker-without"
kind = "docker"
options = { seccomp = "unconfined", capabilities = { add = ["SYS_ADMIN"] }, apparmor = "unconfined" }
[[image]]
name = "scratch"
scratch = true
"#;
