//! Images by reference through the whole of abicus: pulled once from real registries, handed to every engine; what cannot
//! be had is an error of its cells, and the rest of the matrix runs.
//!
//! Needs docker-registry, apache2-utils, skopeo, a docker daemon, crun and root; what is absent fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod image_support;
mod registry_support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use registry_support::{Real, layout, push};

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(matrix: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("matrix.toml"), matrix).unwrap();
        Self { dir }
    }

    fn abicus(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_abicus"));
        command.current_dir(self.dir.path()).env("ABICUS_CACHE", self.dir.path().join("cache"));
        command.env("DOCKER_CONFIG", self.dir.path()).env_remove("REGISTRY_AUTH_FILE").args(arguments);
        command
    }

    /// State and explanation of each cell of the only run, by cell.
    fn cells(&self) -> BTreeMap<String, String> {
        let rows = self.rows().into_iter();
        rows.map(|(cell, row)| (cell, row.values().cloned().collect::<Vec<_>>().join(" | "))).collect()
    }

    fn rows(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let run = fs::read_dir(self.dir.path().join("reports")).unwrap().next().unwrap().unwrap().path();
        let mut reader = csv::Reader::from_path(run.join("cells.csv")).unwrap();
        let rows = reader.deserialize::<BTreeMap<String, String>>().map(Result::unwrap);
        rows.map(|row| (row["cell"].clone(), row)).collect()
    }
}

/// Images that docker keeps of this test, removed also when it fails: what was pulled, and what abicus imported. By their names,
/// since other tests have the same image.
struct InDocker {
    pulled: String,
    imported: &'static str,
}

impl Drop for InDocker {
    fn drop(&mut self) {
        let list = ["images", "--format", "{{.Repository}}:{{.Tag}}", self.imported];
        let imported = Command::new("docker").args(list).output();
        let names = imported.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let _ = Command::new("docker").args(["rmi", "--force", &self.pulled]).args(names.split_whitespace()).output();
    }
}

fn image(name: &str, reference: &str) -> String {
    format!("[[image]]\nname = \"{name}\"\nreference = \"{reference}\"\n")
}

const ENGINES: &str = "[[host]]\nname = \"local\"\n[[engine]]\nname = \"built-in\"\nkind = \"built-in\"\n\
     [[engine]]\nname = \"crun\"\nkind = \"oci\"\nruntime = \"crun\"\n[[engine]]\nname = \"docker\"\nkind = \"docker\"\n";

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn what_can_be_pulled_runs_under_every_engine_and_what_cannot_says_why() {
    let (open, closed, source) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    layout(source.path());
    let (public, private) = (Real::start(open.path(), false), Real::start(closed.path(), true));
    let _in_docker = InDocker { pulled: format!("{}/team/app:one", public.1), imported: "abicus-cache/good" };
    push(source.path(), &public, &[]);
    push(source.path(), &private, &["--dest-creds", "user:sesame"]);
    let images = [
        image("good", &format!("{}/team/app:one", public.1)),
        image("untagged", &format!("{}/team/app:two", public.1)),
        image("locked", &format!("{}/team/app:one", private.1)),
        image("nobody", "127.0.0.1:1/team/app:one"),
        image("pulled", &format!("{}/team/app:one", public.1)) + "pull = \"engine\"\n",
    ];
    let place = Place::new(&(ENGINES.to_owned() + &images.concat()));
    let login = |auth: &str| {
        let config = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{auth}\"}}}}}}", private.1);
        fs::write(place.dir.path().join("config.json"), config).unwrap();
    };
    login("dXNlcjp3cm9uZw==");
    let doctor = text(&place.abicus(&["doctor"]));
    for word in ["sha256:", "manifest unknown", "refuses the credentials", "127.0.0.1:1"] {
        assert!(doctor.contains(word), "no {word:?}: {doctor}");
    }
    let output = place.abicus(&["run", "--no-controls"]);
    // crun 1.8 answers calls that the profile does not know with EPERM, which is a failure of its own.
    assert!(matches!(output.status.code(), Some(1 | 3)), "{}", text(&output));
    let cells = place.cells();
    let says = |cell: &str, word: &str| assert!(cells[cell].contains(word), "{cell}, {word:?}: {}", cells[cell]);
    for engine in ["built-in", "crun", "docker"] {
        assert!(!cells[&format!("local:{engine}:good")].contains("| error"), "{cells:#?}");
        says(&format!("local:{engine}:untagged"), "manifest unknown");
        says(&format!("local:{engine}:locked"), "refuses the credentials");
        says(&format!("local:{engine}:nobody"), "127.0.0.1:1");
    }
    says("local:built-in:pulled", "known to other engines only");
    assert!(!cells["local:docker:pulled"].contains("| error"), "{cells:#?}");
    let rows = place.rows();
    let digest = |cell: &str| rows[cell]["image.digest"].clone();
    assert!(
        digest("local:docker:pulled").starts_with("sha256:"),
        "an image that an engine pulls is looked into as well"
    );
    assert_eq!(digest("local:docker:pulled"), digest("local:docker:good"));

    login("dXNlcjpzZXNhbWU=");
    fs::remove_dir_all(place.dir.path().join("reports")).unwrap();
    let output = place.abicus(&["run", "--no-controls", "--cells", "local:crun:locked"]);
    assert!(!place.cells()["local:crun:locked"].contains("credentials"), "{}", text(&output));
}

/// Which is how desktops keep passwords. The helper answers for one registry only, asked as docker asks.
#[test]
fn a_password_comes_from_a_credential_helper() {
    let (dir, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    layout(source.path());
    let registry = Real::start(dir.path(), true);
    push(source.path(), &registry, &["--dest-creds", "user:sesame"]);
    let host = "[[host]]\nname = \"local\"\n[[engine]]\nname = \"built-in\"\nkind = \"built-in\"\n";
    let place = Place::new(&(host.to_owned() + &image("locked", &format!("{}/team/app:one", registry.1))));
    let bin = place.dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let helper = bin.join("docker-credential-test");
    let doctor = |password: &str, config: &str| {
        let answer = format!("'{{\"ServerURL\":\"x\",\"Username\":\"user\",\"Secret\":\"{password}\"}}'");
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = get ] || exit 3\n[ \"$(cat)\" = {} ] && echo {answer} && exit\n\
             echo credentials not found in native keychain; exit 1\n",
            registry.1
        );
        fs::write(&helper, script).unwrap();
        fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        fs::write(place.dir.path().join("config.json"), config).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        text(&place.command(&["doctor"]).env("PATH", path).output().unwrap())
    };
    let of_host = format!("{{\"credHelpers\":{{\"{}\":\"test\"}}}}", registry.1);
    for config in [of_host.as_str(), "{\"credsStore\":\"test\"}"] {
        let said = doctor("sesame", config);
        assert!(said.contains("sha256:"), "{config}: {said}");
        let said = doctor("wrong", config);
        assert!(said.contains("refuses the credentials") && !said.contains("sha256:"), "{config}: {said}");
    }
    let said = doctor("sesame", "{\"credHelpers\":{\"elsewhere\":\"test\"}}");
    assert!(said.contains("wants a login"), "{said}");
}

#[test]
fn a_disk_that_is_full_while_an_image_is_pulled_is_said_and_the_rest_runs() {
    let (dir, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    layout(source.path());
    let registry = Real::start(dir.path(), false);
    // By way of an engine is the last resort, and so docker has it in the end.
    let _in_docker = InDocker { pulled: format!("{}/team/app:one", registry.1), imported: "abicus-cache/big" };
    push(source.path(), &registry, &[]);
    let matrix = ENGINES.to_owned() + &image("big", &format!("{}/team/app:one", registry.1));
    let place = Place::new(&(matrix + "[[image]]\nname = \"empty\"\nscratch = true\n"));
    let cache = place.dir.path().join("cache");
    fs::create_dir(&cache).unwrap();
    // A file system that is too small for the images of this run, seen by this run only.
    let images = cache.join("images");
    fs::create_dir(&images).unwrap();
    let script = "mount -t tmpfs -o size=40k tmpfs \"$1\" && shift && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", script, "sh"])
        .args([images.as_path(), Path::new(env!("CARGO_BIN_EXE_abicus"))])
        .args(["run", "--no-controls", "--cells", "local:crun:*", "--cells", "local:built-in:*"])
        .current_dir(place.dir.path())
        .env("ABICUS_CACHE", &cache)
        .output()
        .unwrap();
    // crun 1.8 answers calls that the profile does not know with EPERM, which is a failure of its own.
    assert!(matches!(output.status.code(), Some(1 | 3)), "{}", text(&output));
    let cells = place.cells();
    assert!(cells["local:crun:big"].contains("No space left"), "{cells:#?}");
    assert!(!cells["local:crun:empty"].contains("No space left"), "{cells:#?}");
}
