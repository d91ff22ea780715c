//! Root file systems made from packages: by mmdebstrap, which needs a mirror, and by dnf from a repository made here. Those that take a minute each are run by
//! `ci/test --test image_bootstrap -- --ignored`, as `.ci/run` does.
#![allow(clippy::unwrap_used, missing_docs)]

mod image_support;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use abicus::image::{Bootstrap, Deb, Image, Progress, Rpm, Source, Step};
use image_support::{Bench, listing, run, tree};

fn suite(suite: &str, arch: Option<&str>) -> Source {
    let arch = arch.map(str::to_owned);
    Source::Bootstrap(Bootstrap::Deb(Deb { suite: suite.to_owned(), arch, variant: None, include: vec![] }))
}

fn open(bench: &Bench, source: &Source) -> Result<Image, abicus::fault::Fault> {
    let loud: Progress = Arc::new(|step: Step<'_>| {
        if step.done == 0 {
            eprintln!("  {}", step.what);
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(bench.store().open(&"test".parse().unwrap(), source, bench.dir.path(), "amd64", loud))
}

#[test]
#[ignore = "needs mmdebstrap, a mirror and two minutes"]
fn the_same_packages_make_the_same_tree_with_nothing_of_this_machine_in_it() {
    let (one, two) = (Bench::new(), Bench::new());
    let source = suite("bookworm", None);
    let (first, second) = (open(&one, &source).unwrap(), open(&two, &source).unwrap());
    assert_eq!(first.digest, second.digest);
    assert_eq!(first.facts, second.facts);
    assert_eq!(listing(tree(&first)), listing(tree(&second)));
    let root = tree(&first);
    for gone in ["etc/hostname", "etc/resolv.conf", "var/log/dpkg.log", "var/log/apt", "var/lib/dbus/machine-id"] {
        assert!(!root.join(gone).exists(), "{gone}");
    }
    let machine = fs::read_to_string(root.join("etc/machine-id")).unwrap_or_default();
    assert!(["", "uninitialized"].contains(&machine.trim()), "{machine}");
    let lists =
        image_support::run("find", &[root.join("var/lib/apt/lists").to_str().unwrap(), "-type", "f", "-size", "+0"]);
    assert_eq!(lists, "");

    let facts = &first.facts;
    assert_eq!((facts["os.id"].as_str(), facts["os.version"].as_str()), ("debian", "12"));
    assert_eq!((facts["libc.kind"].as_str(), facts["libc.version"].as_str()), ("glibc", "2.36"));
    assert_eq!((facts["arch"].as_str(), facts["bootstrap.arch"].as_str()), ("amd64", "amd64"));
    assert!(facts["bootstrap.tool"].starts_with("mmdebstrap "));
    assert!(facts["bootstrap.suite.date"].starts_with("20") && facts["created"] == facts["bootstrap.suite.date"]);
    let again = open(&one, &source).unwrap();
    assert_eq!(again.facts, first.facts, "what is remembered is what was found");
}

#[test]
#[ignore = "needs mmdebstrap, a mirror and a minute"]
fn an_i386_suite_whose_release_file_has_expired_is_made_on_amd64() {
    let bench = Bench::new();
    let image = open(&bench, &suite("bullseye", Some("i386"))).unwrap();
    assert_eq!(image.architecture.as_deref(), Some("386"));
    assert_eq!(image.loader.as_deref(), Some("/lib/ld-linux.so.2"));
    let without = image.facts.get("bootstrap.without").map(String::as_str);
    assert!([None, Some("security")].contains(&without), "{without:?}");
    assert_eq!((image.facts["libc.version"].as_str(), image.facts["bootstrap.arch"].as_str()), ("2.31", "i386"));
}

#[test]
fn a_small_root_is_made_and_what_it_is_is_recorded() {
    let bench = Bench::new();
    let include = vec!["musl".to_owned(), "busybox-static".to_owned()];
    let variant = Some("extract".to_owned());
    let source = Source::Bootstrap(Bootstrap::Deb(Deb { suite: "bookworm".to_owned(), arch: None, variant, include }));
    let image = open(&bench, &source).unwrap();
    let facts = &image.facts;
    assert_eq!((facts["libc.kind"].as_str(), facts["bootstrap.arch"].as_str()), ("musl", "amd64"));
    assert_eq!(facts["created"], facts["bootstrap.suite.date"]);
    assert!(tree(&image).join("bin/busybox").exists());
    bench.assert_outside_untouched();
}

#[test]
fn a_suite_that_does_not_exist_is_said_with_what_apt_said() {
    let bench = Bench::new();
    let fault = open(&bench, &suite("nosuchsuite", None)).map(|_| ()).unwrap_err();
    assert!(fault.cause.contains("could not make suite `nosuchsuite`"), "{fault}");
    assert!(fault.hint.unwrap().contains("by hand"));
    bench.assert_outside_untouched();
}

/// Three tiny packages: a shell, whose script wants a machine when it is installed; what it needs; what it only recommends.
const PACKAGES: &str = r#"
Name: bash
Version: 5.2
Release: 1
Summary: A shell
License: none
Requires: tiny-release
Recommends: weak
%description
A shell.
%package -n tiny-release
Summary: What it is
Provides: coreutils
%description -n tiny-release
What it is.
%package -n weak
Summary: Not needed
%description -n weak
Not needed.
%install
mkdir -p %{buildroot}/usr/bin %{buildroot}/usr/share/doc %{buildroot}/etc
cp /bin/busybox %{buildroot}/usr/bin/busybox
ln -s busybox %{buildroot}/usr/bin/sh
echo words >%{buildroot}/usr/share/doc/words
printf 'ID=tiny\nVERSION_ID=41\n' >%{buildroot}/etc/os-release
touch %{buildroot}/etc/weak
%post -p /usr/bin/sh
PATH=
b=/usr/bin/busybox
$b test -c /dev/null && $b test -r /proc/self/status && $b id -u >/etc/installed-by
%files
/usr/bin/busybox
%caps(cap_net_raw=ep) /usr/bin/sh
%doc /usr/share/doc/words
%files -n tiny-release
/etc/os-release
%files -n weak
/etc/weak
"#;

/// A directory of packages with an index, as a mirror is.
struct Repository {
    dir: PathBuf,
}

impl Repository {
    fn make(dir: &Path) -> Self {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("tiny.spec"), PACKAGES).unwrap();
        let spec = dir.join("tiny.spec").display().to_string();
        let top = format!("_topdir {}/top", dir.display());
        let rpms = format!("_rpmdir {}/packages", dir.display());
        let define = ["_build_id_links none", "debug_package %{nil}", &top, &rpms].map(|text| ["--define", text]);
        // Debian's rpm has a database in the user's home.
        let home = format!("HOME={}", dir.display());
        run("env", &[&[&home, "rpmbuild", "-bb", "--quiet"], define.as_flattened(), &[&spec]].concat());
        let repository = Self { dir: dir.to_owned() };
        repository.index();
        repository
    }

    fn packages(&self) -> PathBuf {
        self.dir.join("packages")
    }

    fn index(&self) {
        let home = format!("HOME={}", self.dir.display());
        run("env", &[&home, "createrepo_c", "--quiet", self.packages().to_str().unwrap()]);
    }

    fn url(&self) -> String {
        format!("file://{}", self.packages().display())
    }

    /// Signs all packages; gives the public key.
    fn sign(&self) -> PathBuf {
        let home = self.dir.join("gpg").display().to_string();
        fs::create_dir(&home).unwrap();
        run("chmod", &["700", &home]);
        let gpg = format!("gpg --homedir {home} --batch --quiet --no-permission-warning --pinentry-mode loopback");
        let key = self.dir.join("a key").display().to_string();
        let script = "$GPG --passphrase '' --quick-generate-key tester ed25519 sign never 2>/dev/null
            $GPG --armor --export tester >\"$KEY\"
            find \"$1\" -name '*.rpm' -exec rpmsign --define \"__gpg $(command -v gpg)\" --define '_gpg_name tester' --addsign {} + >/dev/null
            gpgconf --homedir \"$GNUPGHOME\" --kill all";
        let mut command = Command::new("sh");
        command.args(["-ec", script, "sh"]).arg(self.packages());
        command.env("GPG", gpg).env("KEY", &key).env("GNUPGHOME", &home).env("HOME", &self.dir);
        assert!(command.status().unwrap().success());
        self.index();
        key.into()
    }
}

fn release(repos: &[&str], keys: &[&Path], include: &[&str]) -> Source {
    Source::Bootstrap(Bootstrap::Rpm(Rpm {
        releasever: "41".to_owned(),
        repos: repos.iter().map(|url| (*url).to_owned()).collect(),
        keys: keys.iter().map(|path| path.to_path_buf()).collect(),
        arch: None,
        include: include.iter().map(|name| (*name).to_owned()).collect(),
    }))
}

#[test]
fn packages_of_a_repository_make_the_same_tree_with_nothing_of_its_making_in_it() {
    let place = tempfile::tempdir().unwrap();
    let repository = Repository::make(&place.path().join("a"));
    let mounts = || fs::read_to_string("/proc/self/mounts").unwrap();
    let before = mounts();
    let (one, two) = (Bench::new(), Bench::new());
    let source = release(&[&repository.url()], &[], &[]);
    let first = open(&one, &source).unwrap();
    // What differs between two makings of a tree is mostly time.
    std::thread::sleep(Duration::from_millis(1100));
    let second = open(&two, &source).unwrap();
    assert_eq!((&first.digest, &first.facts), (&second.digest, &second.facts));
    assert_eq!(listing(tree(&first)), listing(tree(&second)));
    assert_eq!(mounts(), before);

    let root = tree(&first);
    let names = |path: &str| {
        let list =
            fs::read_dir(root.join(path)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut list: Vec<_> = list.collect();
        list.sort();
        list.join(" ")
    };
    assert_eq!(fs::read_to_string(root.join("etc/installed-by")).unwrap(), "0\n", "its script had a machine");
    assert_eq!((names("dev"), names("proc"), names("var/log"), names("var/cache")), Default::default());
    assert!(!root.join("etc/weak").exists() && !root.join("usr/share/doc/words").exists());
    let home = format!("HOME={}", place.path().display());
    // The image's own rpm finds what is installed, in the place of today and in the one of old.
    assert_eq!(names("usr/lib/sysimage/rpm"), "rpmdb.sqlite rpmdb.sqlite-wal");
    assert_eq!(fs::read_link(root.join("var/lib/rpm")).unwrap(), Path::new("../../usr/lib/sysimage/rpm"));
    let list = run(
        "env",
        &[&home, "rpm", "--root", root.to_str().unwrap(), "--dbpath", "/var/lib/rpm", "-qa", "--qf", "%{NAME} "],
    );
    assert!(list.contains("bash ") && list.contains("tiny-release ") && !list.contains("weak"), "{list}");

    let facts = &first.facts;
    let fact = |name: &str| facts.get(name).map_or("", String::as_str);
    assert_eq!((fact("os.id"), fact("os.version"), fact("arch")), ("tiny", "41", "amd64"));
    assert_eq!((fact("bootstrap.releasever"), fact("bootstrap.arch")), ("41", "x86_64"));
    assert_eq!((fact("bootstrap.include"), fact("bootstrap.signatures")), ("bash coreutils", "not checked"));
    assert_eq!((fact("packages.count"), fact("packages").len()), ("2", "sha256:".len() + 64));
    assert!(fact("bootstrap.tool").starts_with("dnf"), "{facts:?}");
    assert!(fact("created").starts_with("20") && fact("created") == fact("bootstrap.repos.date"), "{facts:?}");
    assert_eq!(open(&one, &source).unwrap().facts, first.facts, "what is remembered is what was found");
    one.assert_outside_untouched();
}

#[test]
fn what_keeps_packages_from_becoming_a_tree_is_said_with_what_dnf_said() {
    let place = tempfile::tempdir().unwrap();
    let repository = Repository::make(&place.path().join("a"));
    let url = repository.url();
    let key = place.path().join("no-key");
    fs::write(&key, "no key").unwrap();
    let gone = format!("{url}-that-is-gone");
    // The port is free again, so that nothing listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = format!("http://127.0.0.1:{port}/");
    let cases: [(Source, &str, &str); 8] = [
        // Of this machine, which has Debian's.
        (release(&[], &[], &[]), "dnf found no repository", "by `repos`"),
        (release(&[&url], &[], &["nosuch"]), "nosuch", "by hand"),
        (release(&[&gone], &[], &[]), "repomd.xml", "by hand"),
        (release(&[&nobody], &[], &[]), "repomd.xml", "by hand"),
        (release(&[&url], &[&key], &[]), "GPG", "by hand"),
        (release(&[&url], &[&place.path().join("nokey")], &[]), "nokey", ""),
        (release(&["--config=/etc/passwd"], &[], &[]), "is not the address of a repository", "dnf(8)"),
        (release(&[&url], &[], &["--downloadonly"]), "is not the name of a package", "dnf(8)"),
    ];
    for (source, cause, hint) in cases {
        let bench = Bench::new();
        let fault = open(&bench, &source).map(|_| ()).unwrap_err();
        eprintln!("{fault}");
        assert!(fault.cause.contains(cause), "{source:?}: {fault}");
        assert!(fault.hint.clone().unwrap_or_default().contains(hint), "{source:?}: {fault:?}");
        assert_eq!(fault.transient, cause == "repomd.xml", "{source:?}: {fault:?}");
        bench.assert_outside_untouched();
    }
}

#[test]
fn packages_have_to_be_signed_where_a_key_is_named() {
    let place = tempfile::tempdir().unwrap();
    let repository = Repository::make(&place.path().join("a"));
    let key = repository.sign();
    let bench = Bench::new();
    let image = open(&bench, &release(&[&repository.url()], &[&key], &["bash"])).unwrap();
    assert_eq!(image.facts["bootstrap.signatures"], "checked");

    let other = Repository::make(&place.path().join("b"));
    let other_key = other.sign();
    let fault = open(&bench, &release(&[&repository.url()], &[&other_key], &["bash"])).map(|_| ()).unwrap_err();
    assert!(fault.cause.contains("key"), "{fault}");
    bench.assert_outside_untouched();
}

#[test]
fn dnf_ends_with_the_interest_in_it_and_leaves_nothing() {
    // A mirror that takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let bench = Bench::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = bench.store();
    let id = "test".parse().unwrap();
    let source = release(&[&url], &[], &[]);
    let opened = store.open(&id, &source, bench.dir.path(), "amd64", abicus::image::quiet());
    let place = bench.dir.path().display().to_string();
    let ours = || run("ps", &["-eo", "args"]).lines().filter(|line| line.contains(&place)).count();
    runtime.block_on(async {
        tokio::select! {
            opened = opened => panic!("{:?}", opened.map(|_| ())),
            () = async { while ours() == 0 { tokio::time::sleep(Duration::from_millis(50)).await } } => {}
        }
    });
    let since = Instant::now();
    while ours() > 0 || fs::read_dir(bench.dir.path().join("cache/work")).unwrap().count() > 0 {
        assert!(since.elapsed() < Duration::from_secs(20), "it goes on");
        std::thread::sleep(Duration::from_millis(50));
    }
    bench.assert_outside_untouched();
}

#[test]
fn an_ordinary_user_runs_a_cell_of_a_tree_of_packages() {
    let place = tempfile::Builder::new().prefix("abicus-test-").tempdir_in("/var/tmp").unwrap();
    let dir = place.path();
    let repository = Repository::make(&dir.join("a"));
    let matrix = format!(
        "[[host]]\nname = \"local\"\n[[engine]]\nname = \"built-in\"\nkind = \"built-in\"\n[[image]]\nname = \"tiny\"\n\
         bootstrap = {{ releasever = \"41\", repos = [{:?}] }}\n",
        repository.url()
    );
    fs::write(dir.join("matrix.toml"), matrix).unwrap();
    // A user with a range of ids, who exists in this mount namespace only.
    let append = |file: &str, line: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        fs::write(dir.join(Path::new(file).file_name().unwrap()), format!("{text}{line}\n")).unwrap();
    };
    append("/etc/passwd", &format!("abicus-test:x:12345:12345::{}:/bin/sh", dir.display()));
    append("/etc/group", "abicus-test:x:12345:");
    append("/etc/subuid", "abicus-test:300000:65536");
    append("/etc/subgid", "abicus-test:300000:65536");
    run("chown", &["12345:12345", dir.to_str().unwrap()]);
    run("chmod", &["-R", "a+rX", dir.to_str().unwrap()]);
    let script = "for file in passwd group subuid subgid; do
            [ -e /etc/$file ] || : >/etc/$file
            mount --bind $file /etc/$file
        done
        exec setpriv --reuid 12345 --regid 12345 --clear-groups env -i PATH=\"$PATH\" HOME=\"$PWD\" XDG_CACHE_HOME=\"$PWD/cache\" \
            \"$ABICUS\" run --matrix matrix.toml --no-controls";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation=private", "sh", "-ec", script]).env("ABICUS", env!("CARGO_BIN_EXE_abicus"));
    let output = command.current_dir(dir).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // The tree has no libc: what such an image cannot do is a failure of its own.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{said}");
    let run = fs::read_dir(dir.join("reports")).unwrap().next().unwrap().unwrap().path();
    let mut cells = csv::Reader::from_path(run.join("cells.csv")).unwrap();
    let cells: Vec<BTreeMap<String, String>> = cells.deserialize().map(Result::unwrap).collect();
    assert_eq!((cells.len(), cells[0]["cell"].as_str(), cells[0]["error"].as_str()), (1, "local:built-in:tiny", "0"));
    assert!(cells[0]["pass"].parse::<u32>().unwrap() > 100, "{cells:?}");
    assert!(fs::read_dir(dir.join("cache/abicus/images/work")).unwrap().next().is_none(), "work is cleaned up");
    // dnf alone would have left a directory of this user there.
    let left = fs::read_dir("/var/tmp").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| name.starts_with("dnf-abicus-test")).collect::<Vec<_>>(), [""; 0]);
    let facts = fs::read_to_string(run.join("journal.jsonl")).unwrap();
    assert!(facts.contains("\"bootstrap.releasever\""), "{facts}");
}

#[test]
fn a_machine_without_dnf_is_told_how_to_come_by_it() {
    let place = tempfile::tempdir().unwrap();
    let bin = place.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for program in ["setpriv", "unshare", "sh", "mount"] {
        let found = run("sh", &["-c", "command -v \"$1\"", "sh", program]);
        std::os::unix::fs::symlink(found.trim(), bin.join(program)).unwrap();
    }
    let matrix = "[[host]]\nname = \"local\"\n[[engine]]\nname = \"built-in\"\nkind = \"built-in\"\n[[image]]\nname = \"tiny\"\n\
                  bootstrap = { releasever = \"41\" }\n";
    fs::write(place.path().join("matrix.toml"), matrix).unwrap();
    let doctor = |path: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_abicus"));
        command.arg("doctor").current_dir(place.path()).env("PATH", path);
        let output = command.env("ABICUS_CACHE", place.path().join("cache")).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = doctor(bin.to_str().unwrap());
    assert!(said.contains("dnf cannot be run") && said.contains("install the package dnf"), "{said}");
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = doctor(&std::env::var("PATH").unwrap());
    assert!(code == Some(0) && said.contains("dnf "), "{said}");
}
