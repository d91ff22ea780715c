//! A registry of Debian's package docker-registry on this machine, with and without a password, and an image to put there.
//! Needs docker-registry, apache2-utils and skopeo; what is absent fails the test.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::image_support::{Layout, Tape, gzip, run};

/// A layout whose tag `one` is an image of two layers, and `many` an index for two architectures.
pub fn layout(path: &Path) -> Vec<Vec<u8>> {
    layout_with(path, 60_000)
}

/// The same, with so many bytes that cannot be compressed well.
pub fn layout_with(path: &Path, noise: usize) -> Vec<Vec<u8>> {
    let oci = Layout(path);
    let mut state = 1u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b' ' + (state % 90) as u8)
    };
    let noise: String = (0..noise).map(|_| byte()).collect();
    let layers = vec![Tape::new().file("noise", &noise).end(), Tape::new().file("b", "b").end()];
    let platform = |name: &str| format!(",\"platform\":{{\"os\":\"linux\",\"architecture\":\"{name}\"}}");
    let one = oci.image(&layers, "amd64", gzip, &platform("amd64"));
    let other = oci.image(&[Tape::new().file("arm", "").end()], "arm64", gzip, &platform("arm64"));
    fs::create_dir_all(path.join("tags")).unwrap();
    let digest = one.split("sha256:").nth(1).unwrap()[..64].to_owned();
    fs::copy(path.join("blobs/sha256").join(digest), path.join("tags/one")).unwrap();
    fs::write(path.join("tags/many"), oci.index(&[other, one])).unwrap();
    layers
}

/// A real registry, ended when dropped.
pub struct Real(Child, pub String);

impl Real {
    pub fn start(dir: &Path, password: bool) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            dir.join("data").display()
        );
        if password {
            // user:sesame
            run("sh", &["-c", "htpasswd -Bbn user sesame > \"$1\"", "sh", dir.join("htpasswd").to_str().unwrap()]);
            let file = dir.join("htpasswd");
            config += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display());
        }
        let file = dir.join("registry.yml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let real = Self(command.spawn().unwrap(), address.clone());
        let started = Instant::now();
        while TcpStream::connect(&address).is_err() {
            assert!(started.elapsed() < Duration::from_secs(30), "the registry does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        real
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Copies a layout's image `one` to `team/app:one`.
pub fn push(layout: &Path, registry: &Real, login: &[&str]) {
    push_as(layout, registry, login, "app");
}

/// The same to `team/<name>:one`.
pub fn push_as(layout: &Path, registry: &Real, login: &[&str], name: &str) {
    let oci = Layout(layout);
    let manifest = fs::read(layout.join("tags/one")).unwrap();
    let (digest, size) = oci.blob(&manifest);
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let annotation = "\"annotations\":{\"org.opencontainers.image.ref.name\":\"one\"}";
    oci.write_index(&[format!("{{\"mediaType\":\"{kind}\",\"digest\":\"{digest}\",\"size\":{size},{annotation}}}")]);
    let (from, to) = (format!("oci:{}:one", layout.display()), format!("docker://{}/team/{name}:one", registry.1));
    let mut arguments = vec!["copy", "-q", "--dest-tls-verify=false"];
    arguments.extend(login);
    arguments.extend([from.as_str(), to.as_str()]);
    run("skopeo", &arguments);
}
