//! Bad matrices: each error names the place and what would have been right.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use abicus::spec::{World, resolve};

/// A matrix that resolves, to which each case adds one mistake.
const GOOD: &str = r#"[[host]]
name = "local"
[[engine]]
name = "docker"
kind = "docker"
[[image]]
name = "empty"
scratch = true
"#;

fn world() -> World<'static> {
    World { base: "/m".into(), exists: &|path| path == Path::new("/m/there") }
}

fn error(text: &str) -> String {
    resolve(text, "matrix.toml", &world()).expect_err("the matrix was accepted").to_string()
}

#[test]
fn a_good_matrix_resolves() {
    let matrix = resolve(GOOD, "matrix.toml", &world()).unwrap();
    assert_eq!((matrix.hosts.len(), matrix.engines.len(), matrix.images.len()), (1, 1, 1));
}

#[test]
fn every_mistake_is_named_with_its_place() {
    let cases = [
        ("[[image]]\nnmae = \"x\"\n", "matrix.toml:10:1: unknown field `nmae`", "did you mean `name`?"),
        ("[[image]]\nname = \"x\"\n", "matrix.toml:9:1: image `x` has no source", "give one of `reference`"),
        (
            "[[waiver]]\ncells = \"*:podman:*\"\nchecks = [\"libc.start\"]\nreason = \"r\"\nuntil = 2027-01-01\n",
            "matrix.toml:10:9: `*:podman:*` of a waiver matches no cell of this matrix",
            "`abicus plan` prints the cells",
        ),
        (
            "[[waiver]]\ncells = \"*:*:*\"\nchecks = [\"libc.strat\"]\nreason = \"r\"\nuntil = 2027-01-01\n",
            "matrix.toml:11:11: no check matches `libc.strat`",
            "did you mean `libc.start`?",
        ),
        (
            "[profile]\n[[profile.rule]]\nchecks = []\nrequirement = \"must\"\nreason = \"r\"\n",
            "matrix.toml:11:10: `checks` is empty",
            "",
        ),
        ("[[image]]\nname = 3\n", "matrix.toml:10:8: invalid type: integer `3`, expected a string", ""),
        (
            "[[image]]\nname = \"x\"\nrootfs = \"gone\"\n",
            "matrix.toml:11:10: `/m/gone` does not exist",
            "start from the directory of the matrix",
        ),
        (
            "[[image]]\nname = \"x\"\nbootstrap = {}\n",
            "matrix.toml:11:13: `bootstrap` does not say of what",
            "`suite` for Debian",
        ),
        (
            "[[image]]\nname = \"x\"\nbootstrap = { suite = \"sid\", releasever = \"41\" }\n",
            "matrix.toml:11:43: `bootstrap` has both `suite` and `releasever`",
            "`releasever` for Fedora",
        ),
        (
            "[[image]]\nname = \"x\"\nbootstrap = { suite = \"sid\", repos = [\"file:///r\"] }\n",
            "matrix.toml:11:39: `repos` go with a `releasever`",
            "`releasever` for Fedora",
        ),
        (
            "[[image]]\nname = \"x\"\nbootstrap = { releasever = \"41\", variant = \"minbase\" }\n",
            "matrix.toml:11:44: `variant` goes with a `suite`",
            "`suite` for Debian",
        ),
        (
            "[[image]]\nname = \"x\"\nbootstrap = { releasever = \"41\", repos = [\"a.example/os\"] }\n",
            "matrix.toml:11:43: `a.example/os` is not the address of a repository",
            "`https://",
        ),
        (
            "[[image]]\nname = \"x\"\nbootstrap = { releasever = \"41\", keys = [\"there\"] }\n",
            "matrix.toml:11:42: `keys` go with `repos`",
            "keys of their own",
        ),
        (
            "[[image]]\nname = \"x\"\nbootstrap = { releasever = \"41\", repos = [\"file:///r\"], keys = [\"gone\"] }\n",
            "matrix.toml:11:65: `/m/gone` does not exist",
            "start from the directory of the matrix",
        ),
        (
            "[[image]]\nname = \"x\"\nrootfs = \"there\"\narchive = \"there\"\n",
            "image `x` has both `archive` and `rootfs`",
            "give one of",
        ),
        (
            "[[image]]\nname = \"empty\"\nscratch = true\n",
            "matrix.toml:10:8: image `empty` is declared twice",
            "rename one",
        ),
        (
            "[[image]]\nname = \"control.scratch\"\nscratch = true\n",
            "matrix.toml:10:8: image `control.scratch`",
            "another name",
        ),
        ("[[image]]\nname = \"../x\"\nscratch = true\n", "matrix.toml:10:8: image `../x` is not a valid name", ""),
        (
            "[[engine]]\nname = \"e\"\nkind = \"dokcer\"\n",
            "matrix.toml:11:8: unknown kind of engine `dokcer`",
            "did you mean `docker`?",
        ),
        (
            "[[engine]]\nname = \"e\"\nkind = \"native\"\nruntime = \"crun\"\n",
            "matrix.toml:12:11: a native engine has no runtime",
            "",
        ),
        (
            "[[engine]]\nname = \"e\"\nkind = \"oci\"\n",
            "matrix.toml:11:8: engine `e` does not say which OCI runtime",
            "\"crun\"",
        ),
        (
            "[[image]]\nname = \"x\"\nreference = \"UPPER case\"\n",
            "matrix.toml:11:13: `UPPER case` is not a reference to an image",
            "docker.io/library/debian:12",
        ),
        (
            "[[image]]\nname = \"x\"\nreference = \"debian\"\nplatform = \"windows/amd64\"\n",
            "matrix.toml:12:12: `windows/amd64` is not a platform",
            "linux/386",
        ),
        (
            "[[image]]\nname = \"x\"\nscratch = true\npull = \"engine\"\n",
            "matrix.toml:12:8: `pull` is about a `reference`",
            "",
        ),
        (
            "[[registry]]\nhost = \"docker.io\"\nmirrors = [\"mirror\"]\n",
            "matrix.toml:11:12: `mirror` is not the address of a mirror",
            "https://",
        ),
        (
            "[[engine]]\nname = \"e\"\nkind = \"docker\"\noptions = { seccomp = \"gone.json\" }\n",
            "seccomp profile `/m/gone.json` does not exist",
            "was taken as a path",
        ),
        (
            "[[exclude]]\ncells = \"local:podman:*\"\nreason = \"r\"\n",
            "matrix.toml:10:9: `local:podman:*` matches no cell",
            "{local}:{docker}:{empty}",
        ),
        ("[[exclude]]\ncells = \"local\"\nreason = \"r\"\n", "matrix.toml:10:9: `local` is not a glob over cells", ""),
        ("[defaults]\ntimeout = \"soon\"\n", "matrix.toml:10:11: `soon` is not a duration", "write `500ms`"),
        ("[defaults]\ntimeout = 3\n", "matrix.toml:10:11: invalid type", ""),
        ("[defaults]\nparallel = 0\n", "matrix.toml:10:12: `parallel` must be at least 1", ""),
        ("[[image]\n", "matrix.toml:9:", ""),
    ];
    for (mistake, message, help) in cases {
        let error = error(&format!("{GOOD}{mistake}"));
        assert!(error.contains(message), "{mistake}\nsaid\n{error}\nnot\n{message}");
        assert!(error.contains(help), "{mistake}\nsaid\n{error}\nwithout\n{help}");
    }
}

#[test]
fn all_mistakes_of_a_file_are_reported_at_once() {
    let error = error(&format!("{GOOD}[[image]]\nname = \"x\"\n[[engine]]\nname = \"e\"\nkind = \"kubernets\"\n"));
    assert_eq!(error.matches("matrix.toml:").count(), 2, "{error}");
}

#[test]
fn an_empty_matrix_says_what_to_add() {
    let error = error("");
    assert!(error.contains("no [[host]]") && error.contains("no [[engine]]"), "{error}");
}
