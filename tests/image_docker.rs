//! Images that a real docker made, compared with what docker itself makes of them.
#![allow(clippy::unwrap_used, missing_docs)]

mod image_support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use abicus::image::{Source, tree_tar};
use image_support::{Bench, awkward_tree, listing, run, tree};

/// Layers that replace, delete and link whatever they can.
const TORTURE: &str = r#"FROM scratch
ADD base.tar /
RUN cd /t && rm -rf gone && rm etc/exact && ln etc/passwd hard && mv etc/deep moved && rm -rf to-link && ln -s moved to-link \
 && chmod 4711 etc/empty && touch -d '2003-03-03 03:03:03' etc/empty
RUN cd /t && rm -rf opaque && mkdir -m 0700 opaque && echo new > opaque/new && mknod opaque/zero c 1 5 && mkfifo opaque/pipe \
 && chown -h 77:88 to-link && rm to-dir && mkdir to-dir && echo y > to-dir/y && mv opaque/new opaque/newer
RUN cd /t && rm to-link && mkdir to-link && echo z > to-link/z && rm -rf to-dir && echo file > to-dir && cp -a etc etc2 \
 && rm -rf etc/deep etc/link && ln -s ../outside etc/link && echo more >> hard
"#;

/// An image that is removed again.
struct Tag(String);

impl Tag {
    fn new(what: &str) -> Self {
        // Two tests of this program may make the same at once.
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        Self(format!("abicus-test-{what}:{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
    }
}

impl Drop for Tag {
    fn drop(&mut self) {
        drop(
            Command::new("docker")
                .args(["image", "rm", "-f", &self.0])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status(),
        );
    }
}

fn torture(context: &Path) -> Tag {
    let base = context.join("base");
    for directory in ["bin", "tmp", "t/gone/deep", "t/opaque/old", "t/to-link/x"] {
        fs::create_dir_all(base.join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", base.join("bin/sh")).unwrap();
    fs::write(base.join("t/to-dir"), "x").unwrap();
    awkward_tree(&base.join("t"));
    let (tar, dir) = (context.join("base.tar"), base.to_str().unwrap());
    run("tar", &["--xattrs", "--format=pax", "-cf", tar.to_str().unwrap(), "-C", dir, "."]);
    fs::remove_dir_all(&base).unwrap();
    // `bin` holds only `sh`: RUN finds the rest by busybox's own name for it.
    fs::write(
        context.join("Dockerfile"),
        TORTURE.replace("RUN cd", "RUN PATH=/bin; /bin/busybox --install -s /bin; cd"),
    )
    .unwrap();
    let tag = Tag::new("torture");
    let build =
        Command::new("docker").env("DOCKER_BUILDKIT", "0").args(["build", "-q", "-t", &tag.0]).arg(context).output();
    let build = build.unwrap();
    assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
    tag
}

fn export(tag: &Tag, into: &Path) {
    let container = run("docker", &["create", &tag.0, "/x"]).trim().to_owned();
    fs::create_dir(into).unwrap();
    let into = into.to_str().unwrap();
    let script = "docker export \"$1\" | tar --xattrs '--xattrs-include=*' --same-owner -xpf - -C \"$2\"";
    run("sh", &["-c", script, "sh", &container, into]);
    run("docker", &["rm", &container]);
}

#[test]
fn four_layers_become_the_tree_that_docker_exports() {
    let (bench, context) = (Bench::new(), tempfile::tempdir().unwrap());
    let tag = torture(context.path());
    let saved = bench.dir.path().join("saved.tar");
    run("docker", &["save", "-o", saved.to_str().unwrap(), &tag.0]);
    let image = bench.open(&Source::Archive { path: saved, tag: None }).unwrap();
    let exported = context.path().join("exported");
    export(&tag, &exported);
    assert_eq!(listing(&exported.join("t")), listing(&tree(&image).join("t")));
    assert_eq!(listing(&exported.join("bin")), listing(&tree(&image).join("bin")));
    let chain = run("docker", &["image", "inspect", "-f", "{{json .RootFS.Layers}}", &tag.0]);
    assert_eq!(chain.matches("sha256:").count(), 4, "{chain}");
}

#[test]
fn docker_imports_the_tar_of_a_tree_and_saves_the_same_image() {
    let (bench, source) = (Bench::new(), tempfile::tempdir().unwrap());
    fs::create_dir(source.path().join("t")).unwrap();
    awkward_tree(&source.path().join("t"));
    let image = bench.open(&Source::Rootfs(source.path().to_path_buf())).unwrap();
    let tag = Tag::new("import");
    let mut import = Command::new("docker").args(["import", "-", &tag.0]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = import.stdin.take().unwrap();
    std::io::copy(&mut tree_tar(tree(&image)).unwrap(), &mut stdin).unwrap();
    stdin.flush().unwrap();
    drop(stdin);
    assert!(import.wait().unwrap().success());
    let saved = bench.dir.path().join("saved.tar");
    run("docker", &["save", "-o", saved.to_str().unwrap(), &tag.0]);
    let again = bench.open(&Source::Archive { path: saved, tag: None }).unwrap();
    assert_eq!(listing(&source.path().join("t")), listing(&tree(&again).join("t")));
    let layers = run("docker", &["image", "inspect", "-f", "{{index .RootFS.Layers 0}}", &tag.0]);
    assert_eq!(layers.trim(), image.digest, "docker calls the one layer by the digest we gave the tree");
}

#[test]
fn an_image_is_the_same_tree_however_skopeo_stores_it() {
    let (bench, context) = (Bench::new(), tempfile::tempdir().unwrap());
    let tag = torture(context.path());
    let saved = context.path().join("saved.tar");
    run("docker", &["save", "-o", saved.to_str().unwrap(), &tag.0]);
    let from = format!("docker-archive:{}", saved.display());
    let (layout, archive) = (context.path().join("layout"), context.path().join("oci.tar"));
    run("skopeo", &["copy", "-q", &from, &format!("oci:{}:one", layout.display())]);
    run(
        "skopeo",
        &[
            "copy",
            "-q",
            "--dest-compress-format=zstd",
            "--dest-compress",
            &from,
            &format!("oci:{}:two", layout.display()),
        ],
    );
    run("skopeo", &["copy", "-q", &from, &format!("oci-archive:{}:one", archive.display())]);
    let direct = bench.open(&Source::Archive { path: saved, tag: None }).unwrap();
    let by_layout = bench.open(&Source::Layout { path: layout.clone(), tag: Some("one".to_owned()) }).unwrap();
    let by_zstd = bench.open(&Source::Layout { path: layout, tag: Some("two".to_owned()) }).unwrap();
    assert_eq!(direct.digest, by_zstd.digest);
    assert_ne!(by_layout.facts["manifest.digest"], by_zstd.facts["manifest.digest"], "they are stored differently");
    let by_archive = bench.open(&Source::Archive { path: archive, tag: None }).unwrap();
    assert_eq!(direct.digest, by_layout.digest);
    assert_eq!(direct.digest, by_archive.digest);
    assert_eq!(direct.content, by_layout.content);
}
