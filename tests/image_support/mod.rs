//! What the tests of images share: trees that hold one of everything, and a full description of a tree.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, missing_docs)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub fn awkward_tree(tree: &Path) {
    fs::create_dir_all(tree.join("etc/deep")).unwrap();
    fs::write(tree.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    fs::set_permissions(tree.join("etc/passwd"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(tree.join("etc/passwd"), tree.join("etc/passwd-")).unwrap();
    fs::write(tree.join("etc/exact"), [7u8; 1024]).unwrap();
    fs::write(tree.join("etc/empty"), "").unwrap();
    fs::write(tree.join(format!("etc/deep/{}", "n".repeat(200))), "long name").unwrap();
    symlink("../../../outside", tree.join("etc/link")).unwrap();
    symlink("/".to_owned() + &"t".repeat(300), tree.join("etc/long-link")).unwrap();
    run("mkfifo", &[tree.join("etc/pipe").to_str().unwrap()]);
    run("touch", &["-d", "2001-02-03T04:05:06.789123456Z", tree.join("etc/exact").to_str().unwrap()]);
    run("touch", &["-d", "1969-12-31T23:59:58.25Z", tree.join("etc/empty").to_str().unwrap()]);
    rustix::fs::setxattr(tree.join("etc/exact"), "user.note", b"kept\0\n", rustix::fs::XattrFlags::empty()).unwrap();
    if is_root() {
        run("mknod", &[tree.join("etc/null").to_str().unwrap(), "c", "1", "3"]);
        run("mknod", &[tree.join("etc/disk").to_str().unwrap(), "b", "259", "70000"]);
        run("chown", &["12345:3000000", tree.join("etc/empty").to_str().unwrap()]);
        fs::write(tree.join("etc/suid"), "x").unwrap();
        fs::set_permissions(tree.join("etc/suid"), fs::Permissions::from_mode(0o4755)).unwrap();
        run("setcap", &["cap_net_raw=ep", tree.join("etc/suid").to_str().unwrap()]);
    }
    run("touch", &["-d", "2002-01-01T00:00:00.5Z", tree.join("etc").to_str().unwrap()]);
}

/// Everything that can be told about every path: type, mode, owner, time, link count, link, device.
pub fn listing(tree: &Path) -> String {
    let format = "%P %y %m %U %G %T@ %n %l %s\n";
    let found = run("find", &[tree.to_str().unwrap(), "-printf", format]);
    let mut lines: Vec<String> = found
        .lines()
        // The size of a directory is the file system's own business.
        .map(|line| if line.contains(" d ") { line.rsplit_once(' ').unwrap().0.to_owned() } else { line.to_owned() })
        .collect();
    lines.sort();
    let devices = run(
        "sh",
        &[
            "-c",
            "cd \"$1\" && find . -type b -o -type c | sort | xargs -r stat -c '%n %t %T'",
            "sh",
            tree.to_str().unwrap(),
        ],
    );
    let attributes: Vec<String> = run("find", &[tree.to_str().unwrap()]).lines().flat_map(attributes).collect();
    let attributes = attributes.join("\n").replace(tree.to_str().unwrap(), "");
    format!("{}\n{devices}{attributes}", lines.join("\n"))
}

fn attributes(path: &str) -> Vec<String> {
    let mut list = vec![0; 65536];
    let size = rustix::fs::llistxattr(path, list.as_mut_slice()).unwrap_or(0);
    let names = list[..size].split(|b| *b == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 65536];
            let size = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap();
            format!("{path} {} {:?}", String::from_utf8_lossy(name), &value[..size])
        })
        .collect()
}

/// An archive written entry by entry, with whatever words in it.
#[derive(Default, Clone)]
pub struct Tape(pub Vec<u8>);

impl Tape {
    pub fn new() -> Self {
        Self::default()
    }

    /// An entry of any type flag. The path and the link go in as they are, so they must be short.
    pub fn raw(mut self, flag: u8, path: &str, link: &str, data: &[u8], change: impl Fn(&mut tar::Header)) -> Self {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(flag));
        header.set_mode(if flag == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, path: &str, data: &str) -> Self {
        self.raw(b'0', path, "", data.as_bytes(), |_| {})
    }

    pub fn dir(self, path: &str) -> Self {
        self.raw(b'5', path, "", b"", |_| {})
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.raw(b'2', path, target, b"", |_| {})
    }

    pub fn link(self, path: &str, target: &str) -> Self {
        self.raw(b'1', path, target, b"", |_| {})
    }

    pub fn fifo(self, path: &str) -> Self {
        self.raw(b'6', path, "", b"", |_| {})
    }

    pub fn device(self, flag: u8, path: &str, major: u32, minor: u32) -> Self {
        self.raw(flag, path, "", b"", |header| {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        })
    }

    /// A pax header for the entry that follows.
    pub fn pax(self, records: &[(&str, &str)]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = format!(" {key}={value}\n");
            let mut length = rest.len();
            while format!("{length}{rest}").len() != length {
                length += 1;
            }
            data.extend(format!("{length}{rest}").bytes());
        }
        self.raw(b'x', "PaxHeaders/x", "", &data, |_| {})
    }

    /// The whole archive.
    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub fn hex(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn config(layers: &[Vec<u8>], architecture: &str) -> String {
    let inside: Vec<String> = layers.iter().map(|layer| format!("\"sha256:{}\"", hex(layer))).collect();
    let inside = inside.join(",");
    format!(
        "{{\"architecture\":\"{architecture}\",\"os\":\"linux\",\"created\":\"2020-02-02T02:02:02Z\",\
         \"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[{inside}]}}}}"
    )
}

/// What `docker save` writes, with these uncompressed layers.
pub fn saved(layers: &[Vec<u8>]) -> Vec<u8> {
    let config = config(layers, "amd64");
    let config_name = format!("{}.json", hex(config.as_bytes()));
    let names: Vec<String> = (0..layers.len()).map(|at| format!("\"{at}/layer.tar\"")).collect();
    let manifest =
        format!("[{{\"Config\":\"{config_name}\",\"RepoTags\":[\"test:one\"],\"Layers\":[{}]}}]", names.join(","));
    let mut tape = Tape::new().file(&config_name, &config);
    for (at, layer) in layers.iter().enumerate() {
        tape = tape.raw(b'0', &format!("{at}/layer.tar"), "", layer, |_| {});
    }
    tape.file("manifest.json", &manifest).end()
}

/// An OCI image layout on disk, put together blob by blob.
pub struct Layout<'a>(pub &'a Path);

impl Layout<'_> {
    pub fn blob(&self, bytes: &[u8]) -> (String, usize) {
        fs::create_dir_all(self.0.join("blobs/sha256")).unwrap();
        fs::write(self.0.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
        fs::write(self.0.join("blobs/sha256").join(hex(bytes)), bytes).unwrap();
        (format!("sha256:{}", hex(bytes)), bytes.len())
    }

    /// A manifest with these uncompressed layers, stored as `pack` makes them; gives its descriptor.
    pub fn image(&self, layers: &[Vec<u8>], architecture: &str, pack: impl Fn(&[u8]) -> Vec<u8>, more: &str) -> String {
        let (config, size) = self.blob(config(layers, architecture).as_bytes());
        let layers: Vec<String> = layers
            .iter()
            .map(|layer| {
                let (digest, size) = self.blob(&pack(layer));
                let kind = "application/vnd.oci.image.layer.v1.tar";
                format!("{{\"mediaType\":\"{kind}\",\"digest\":\"{digest}\",\"size\":{size}}}")
            })
            .collect();
        let kind = "application/vnd.oci.image.config.v1+json";
        let manifest = format!(
            "{{\"schemaVersion\":2,\"config\":{{\"mediaType\":\"{kind}\",\"digest\":\"{config}\",\"size\":{size}}},\
             \"layers\":[{}]}}",
            layers.join(",")
        );
        let (digest, size) = self.blob(manifest.as_bytes());
        let kind = "application/vnd.oci.image.manifest.v1+json";
        format!("{{\"mediaType\":\"{kind}\",\"digest\":\"{digest}\",\"size\":{size}{more}}}")
    }

    pub fn index(&self, manifests: &[String]) -> String {
        format!("{{\"schemaVersion\":2,\"manifests\":[{}]}}", manifests.join(","))
    }

    pub fn write_index(&self, manifests: &[String]) {
        fs::write(self.0.join("index.json"), self.index(manifests)).unwrap();
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// A place with an image cache, and something beside it that no image may touch.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub limits: abicus::image::Limits,
}

impl Bench {
    pub fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap(), limits: abicus::image::Limits::default() };
        fs::create_dir(bench.victim()).unwrap();
        fs::write(bench.victim().join("file"), "untouched").unwrap();
        bench
    }

    pub fn victim(&self) -> std::path::PathBuf {
        self.dir.path().join("victim")
    }

    /// From the root of a tree that is being made to the victim.
    pub const CLIMB: &str = "../../../../victim";

    pub fn store(&self) -> abicus::image::ImageStore {
        abicus::image::ImageStore::at(self.dir.path().join("cache")).unwrap().limits(self.limits)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> std::path::PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    pub fn open(&self, source: &abicus::image::Source) -> Result<abicus::image::Image, abicus::fault::Fault> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let id = "test".parse().unwrap();
        let quiet = abicus::image::quiet();
        runtime.block_on(self.store().open(&id, source, self.dir.path(), "amd64", quiet))
    }

    pub fn rootfs(&self, tar: &[u8]) -> Result<abicus::image::Image, abicus::fault::Fault> {
        self.open(&abicus::image::Source::Rootfs(self.write("rootfs.tar", tar)))
    }

    pub fn layers(&self, layers: &[Vec<u8>]) -> Result<abicus::image::Image, abicus::fault::Fault> {
        self.open(&abicus::image::Source::Archive { path: self.write("saved.tar", &saved(layers)), tag: None })
    }

    /// Nothing outside the cache has changed, and no tree was kept of what was refused.
    pub fn assert_outside_untouched(&self) {
        self.assert_outside_untouched_but(&[]);
    }

    /// The same, with these directories of the cache besides the usual ones.
    pub fn assert_outside_untouched_but(&self, more: &[&str]) {
        assert_eq!(fs::read_to_string(self.victim().join("file")).unwrap(), "untouched");
        assert_eq!(fs::metadata(self.victim().join("file")).unwrap().permissions().mode() & 0o7777, 0o644);
        let names = |path: &Path| {
            let mut names: Vec<String> =
                fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&self.victim()), ["file"]);
        let beside: Vec<String> = names(self.dir.path()).into_iter().filter(|name| !name.ends_with(".tar")).collect();
        assert_eq!(beside, ["cache", "victim"]);
        let mut expected = [&["locks", "sources", "trees", "work"], more].concat();
        expected.sort_unstable();
        assert_eq!(names(&self.dir.path().join("cache")), expected);
        assert!(names(&self.dir.path().join("cache/work")).is_empty(), "work is cleaned up");
    }
}

pub fn tree(image: &abicus::image::Image) -> &Path {
    match &image.content {
        abicus::image::Content::Tree(path) => path,
        other => panic!("no tree but {other:?}"),
    }
}
