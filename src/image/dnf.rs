//! RPM packages → a root file system, made by dnf (4 or 5) from the repositories that the matrix names, or else from those
//! of this machine.
//!
//! In: an [`Rpm`] and a private directory. Out: a tar archive in it, the same bytes for the same packages, and how old the
//! repositories are. dnf works in mounts and processes of its own, which end with it; an ordinary user's in a user
//! namespace too. Nothing of the matrix reaches a shell: what is asked for is checked and passed one by one, or by files.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use jiff::Timestamp;

use super::Rpm;
use super::blob::{Cancel, sha256};
use super::bootstrap::{Made, plain};
use super::error::ImageError;
use super::inspect::printable;
use super::root::Root;
use super::store::{Progress, Step};
use super::tool::{self, Farewell};

const TOOL: &str = "dnf";
/// What is installed where nothing is asked for.
const PACKAGES: [&str; 2] = ["bash", "coreutils"];
const SCHEMES: [&str; 4] = ["https://", "http://", "ftp://", "file:///"];
/// Runs a command with what scripts of packages want of a machine: fixed text, its words are a tree and the command.
///
/// The database is where distributions have had it since 2021, with a link from where it was before
/// (<https://fedoraproject.org/wiki/Changes/RelocateRPMToUsr>); Debian's rpm would put it into the user's home.
const MACHINE: &str = r#"
tree=$1
shift
mkdir -p "$tree/dev" "$tree/proc" "$tree/usr/lib/sysimage/rpm" "$tree/var/lib"
[ -e "$tree/var/lib/rpm" ] || ln -s ../../usr/lib/sysimage/rpm "$tree/var/lib/rpm"
mount -t tmpfs -o mode=755 dev "$tree/dev"
for name in full null random tty urandom zero; do
    : >"$tree/dev/$name"
    mount --bind "/dev/$name" "$tree/dev/$name"
done
mount -t proc proc "$tree/proc"
exec "$@"
"#;
const MACROS: &str = "%_dbpath /usr/lib/sysimage/rpm\n";
/// What comes from making the tree and not from the packages.
const FORGET: [&str; 13] = [
    "./etc/machine-id",
    "./usr/lib/sysimage/libdnf5",
    "./usr/lib/sysimage/rpm/.rpm.lock",
    "./usr/lib/sysimage/rpm/rpmdb.sqlite-shm",
    "./var/cache/dnf",
    "./var/cache/ldconfig/aux-cache",
    "./var/cache/libdnf5",
    "./var/lib/dnf",
    "./var/log/dnf.librepo.log",
    "./var/log/dnf.log",
    "./var/log/dnf.rpm.log",
    "./var/log/dnf5.log",
    "./var/log/hawkey.log",
];

/// What makes two of them the same.
pub fn key(wanted: &Rpm, architecture: &str) -> String {
    let Rpm { releasever, repos, keys, .. } = wanted;
    format!("dnf 1 {releasever} {} {repos:?} {keys:?} {}", rpm(wanted, architecture), packages(wanted).join(","))
}

/// Makes the root file system in `work`, which nobody else uses.
pub fn make(
    wanted: &Rpm,
    architecture: &str,
    work: &Path,
    cancel: &Cancel,
    progress: &Progress,
) -> Result<Made, ImageError> {
    check(wanted, architecture)?;
    let tool = version()?;
    let say = |what: &str| {
        progress(Step { what: &format!("release {}: {what}", wanted.releasever), done: 0, total: None });
    };
    let kitchen = Kitchen::new(wanted, architecture, work, tool.starts_with("dnf5"), cancel)?;

    // The age of the packages has to be known before any is installed: it is the time of installation, too.
    say("reading the indexes of the repositories");
    kitchen.dnf(&["makecache"], None)?;
    let date = date(&kitchen.tree)?;
    say("fetching and installing the packages");
    let mut install = vec!["install"];
    install.extend(packages(wanted));
    kitchen.dnf(&install, Some(date))?;
    let list = kitchen.dnf(&["repoquery", "--installed", "--queryformat", "%{name} %{arch} %{evr}\n"], None)?;
    let list = fs::read_to_string(&list).map_err(ImageError::io("could not read", &list))?;
    let mut installed: Vec<&str> = list.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    installed.sort_unstable();
    installed.dedup();
    say("packing the tree");
    let archive = kitchen.pack(date)?;

    let signatures = match (wanted.repos.is_empty(), wanted.keys.is_empty()) {
        (true, _) => "as configured",
        (false, true) => "not checked",
        (false, false) => "checked",
    };
    let created = date.to_string();
    let facts = [
        ("bootstrap.releasever", wanted.releasever.clone()),
        ("bootstrap.repos", wanted.repos.join(" ")),
        ("bootstrap.repos.date", created.clone()),
        ("bootstrap.signatures", signatures.to_owned()),
        ("bootstrap.arch", rpm(wanted, architecture)),
        ("bootstrap.include", packages(wanted).join(" ")),
        ("bootstrap.tool", tool),
        ("packages", sha256(installed.join("\n").as_bytes())),
        ("packages.count", installed.len().to_string()),
    ];
    let facts = facts.into_iter().filter(|(_, value)| !value.is_empty());
    Ok(Made { archive, facts: facts.map(|(name, value)| (name.to_owned(), value)).collect(), created })
}

fn packages(wanted: &Rpm) -> Vec<&str> {
    if wanted.include.is_empty() { PACKAGES.to_vec() } else { wanted.include.iter().map(String::as_str).collect() }
}

/// RPM's name of the architecture wanted.
fn rpm(wanted: &Rpm, architecture: &str) -> String {
    wanted.arch.clone().unwrap_or_else(|| {
        match architecture {
            "amd64" => "x86_64",
            "386" => "i686",
            "arm64" => "aarch64",
            "arm" => "armv7hl",
            other => other,
        }
        .to_owned()
    })
}

/// Whether this can be the address of a repository: dnf would take blanks and commas for the end of it.
pub(crate) fn is_repository(url: &str) -> bool {
    let rest = SCHEMES.iter().find_map(|scheme| url.strip_prefix(scheme));
    rest.is_some_and(|rest| {
        let host = rest.split('/').next().unwrap_or_default();
        (!host.is_empty() || url.starts_with("file:///")) && !host.contains('@') && url.len() <= 1000
    }) && url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

fn check(wanted: &Rpm, architecture: &str) -> Result<(), ImageError> {
    let refuse = |what: &str, name: &str| {
        Err(ImageError::Missing {
            what: format!("`{name:.100}` is not {what}"),
            hint: "see dnf(8) for releases, architectures and packages".to_owned(),
        })
    };
    let arch = rpm(wanted, architecture);
    if !plain(&wanted.releasever, ".-_") {
        return refuse("the name of a release", &wanted.releasever);
    }
    if !plain(&arch, "_") {
        return refuse("an architecture", &arch);
    }
    if let Some(url) = wanted.repos.iter().find(|url| !is_repository(url)) {
        return refuse("the address of a repository", url);
    }
    match packages(wanted).into_iter().find(|name| !plain(name.strip_prefix('@').unwrap_or(name), ".-+:~_^")) {
        Some(package) => refuse("the name of a package", package),
        None => Ok(()),
    }
}

/// The tool's version, or how to get the tool.
pub(crate) fn version() -> Result<String, ImageError> {
    // Be it for no more than this, Debian's rpm makes a database in the home of who asks, and dnf 4 a log, and a directory
    // in /var/tmp for an ordinary user.
    let home = tempfile::tempdir().map_err(ImageError::io("could not make a directory in", &std::env::temp_dir()))?;
    let mut command = within(&["sh", "-ec", "mount -t tmpfs log /var/log; exec \"$@\"", "sh", TOOL, "--version"]);
    let missing = |why: &str| ImageError::Missing {
        what: format!("{TOOL} cannot be run: {why}"),
        hint: namespaces(why).map_or_else(
            || {
                format!(
                    "install the package {TOOL} (Fedora and its like have it, Debian and Ubuntu offer it), or name the \
                     image by `reference`, or a tree made elsewhere by `rootfs`"
                )
            },
            str::to_owned,
        ),
    };
    let output = command.env("HOME", home.path()).output().map_err(|e| missing(&e.to_string()))?;
    let (said, erred) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // dnf 4 says `4.14.0`, dnf 5 `dnf5 version 5.2.6.2`.
    match said.lines().next() {
        Some(line) if output.status.success() && line.starts_with(TOOL) => Ok(printable(line)),
        Some(line) if output.status.success() => Ok(printable(&format!("{TOOL} {line}"))),
        _ => Err(missing(&erred.lines().last().map_or_else(|| output.status.to_string(), printable))),
    }
}

/// What an ordinary user needs where this was said.
fn namespaces(said: &str) -> Option<&'static str> {
    let of_namespaces = ["unshare:", "newuidmap", "newgidmap", "mount:"].iter().any(|word| said.contains(word));
    (!is_root() && of_namespaces).then_some(
        "it needs the package uidmap, a range for this user in /etc/subuid and /etc/subgid, and user namespaces for \
         ordinary users; or run as root",
    )
}

/// Where one tree is made.
struct Kitchen<'a> {
    work: &'a Path,
    tree: PathBuf,
    /// What every call of dnf begins with.
    words: Vec<String>,
    cancel: &'a Cancel,
}

impl Drop for Kitchen<'_> {
    fn drop(&mut self) {
        if !is_root() {
            // What the namespace's root made only it can remove.
            let mut remove = within(&["rm", "-rf"]);
            drop(remove.arg(&self.tree).stderr(Stdio::null()).status());
        }
    }
}

impl<'a> Kitchen<'a> {
    fn new(
        wanted: &Rpm,
        architecture: &str,
        work: &'a Path,
        is_five: bool,
        cancel: &'a Cancel,
    ) -> Result<Self, ImageError> {
        let tree = work.join("tree");
        let path = |name: &str| work.join(name).display().to_string();
        let mut words = vec![
            "-y".to_owned(),
            format!("--installroot={}", tree.display()),
            format!("--releasever={}", wanted.releasever),
            format!("--forcearch={}", rpm(wanted, architecture)),
            // As the distributions make their own images.
            "--setopt=install_weak_deps=False".to_owned(),
            "--setopt=tsflags=nodocs".to_owned(),
            // This machine's plugins are for this machine, and what was fetched once stays as it is.
            "--setopt=plugins=False".to_owned(),
            "--setopt=metadata_expire=-1".to_owned(),
        ];
        for directory in ["home/.config/rpm", "repos"] {
            let place = work.join(directory);
            fs::create_dir_all(&place).map_err(ImageError::io("could not make", &place))?;
        }
        let write = |name: &str, text: &str| {
            let place = work.join(name);
            fs::write(&place, text).map_err(ImageError::io("could not write", &place))
        };
        // The old and the new place of a user's own macros (rpm 4.20).
        write("home/.rpmmacros", MACROS)?;
        write("home/.config/rpm/macros", MACROS)?;
        if wanted.repos.is_empty() {
            if is_five {
                words.push("--use-host-config".to_owned());
            }
        } else {
            write("dnf.conf", "[main]\n")?;
            write("repos/abicus.repo", &configuration(wanted, work)?)?;
            words.extend([format!("--config={}", path("dnf.conf")), format!("--setopt=reposdir={}", path("repos"))]);
        }
        Ok(Self { work, tree, words, cancel })
    }

    /// Runs dnf; gives the file with what it said on standard output.
    fn dnf(&self, what: &[&str], installed: Option<Timestamp>) -> Result<PathBuf, ImageError> {
        let said = self.work.join("said");
        let mut command = within(&["sh", "-ec", MACHINE, "sh"]);
        command.arg(&self.tree).arg(TOOL).args(&self.words).args(what);
        command.env("HOME", self.work.join("home")).env_remove("XDG_CONFIG_HOME").env("LC_ALL", "C.UTF-8");
        command.env_remove("SOURCE_DATE_EPOCH");
        if let Some(time) = installed {
            // What rpm's database has as the time of installation.
            command.env("SOURCE_DATE_EPOCH", time.as_second().to_string());
        }
        command.current_dir(self.work);
        self.run(command, &said, "dnf could not make the tree")?;
        Ok(said)
    }

    /// The tree as tar, without what is not of the packages.
    fn pack(&self, date: Timestamp) -> Result<PathBuf, ImageError> {
        let archive = self.work.join("bootstrap.tar");
        let mut command = within(&["tar", "--create", "--sort=name", "--numeric-owner", "--format=posix"]);
        command.arg("--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime");
        command.args(["--xattrs", "--xattrs-include=security.capability"]);
        command.arg("--clamp-mtime").arg(format!("--mtime=@{}", date.as_second()));
        command.args(FORGET.map(|path| format!("--exclude={path}")));
        command.arg("-C").arg(&self.tree).arg(".");
        self.run(command, &archive, "tar could not pack the tree")?;
        Ok(archive)
    }

    fn run(&self, mut command: Command, output: &Path, failed: &str) -> Result<(), ImageError> {
        let file = File::create(output).map_err(ImageError::io("could not make", output))?;
        command.stdout(file).stderr(Stdio::piped()).process_group(0);
        let hint = format!("run `{TOOL} --installroot=/tmp/try … install …` by hand to see all it says");
        let mut said = Vec::new();
        let mut hear = |line: &str| said.extend(Some(printable(line)).filter(|line| !line.is_empty()));
        let status = tool::run(command, Farewell::Killed, &hint, self.cancel, &mut hear)?;
        if status.success() {
            return Ok(());
        }
        // The last words tell; before them are warnings.
        let said =
            if said.is_empty() { status.to_string() } else { said.split_off(said.len().saturating_sub(4)).join("; ") };
        let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
        let hint = namespaces(&said).map_or(hint, str::to_owned);
        let transient = says(&["Curl error", "Failed to download", "Cannot download"]);
        Err(ImageError::Failed { what: format!("{failed}: {said}"), hint, transient })
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command in mounts and processes of its own, which are gone when this process is; an ordinary user is root there.
fn within(words: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare"]);
    if !is_root() {
        command.args(["--map-root-user", "--map-auto"]);
    }
    command.args(["--mount", "--propagation=private", "--pid", "--fork", "--kill-child"]).args(words);
    command.stdin(Stdio::null());
    command
}

/// The repositories, as dnf reads them from a file.
fn configuration(wanted: &Rpm, work: &Path) -> Result<String, ImageError> {
    let mut keys = vec![];
    for (at, key) in wanted.keys.iter().enumerate() {
        let place = work.join(format!("key-{at}"));
        fs::copy(key, &place).map_err(ImageError::io("could not read the key", key))?;
        keys.push(format!("file://{}", place.display().to_string().replace('%', "%25").replace(' ', "%20")));
    }
    let check = u8::from(!keys.is_empty());
    let keys = keys.join(" ");
    let one = |(at, url): (usize, &String)| {
        format!("[repo-{at}]\nname=repo-{at}\nbaseurl={url}\nenabled=1\ngpgcheck={check}\ngpgkey={keys}\n\n")
    };
    Ok(wanted.repos.iter().enumerate().map(one).collect())
}

/// When the youngest of the repositories was made, as their indexes say.
fn date(tree: &Path) -> Result<Timestamp, ImageError> {
    let root = Root::open(tree)?;
    let mut newest = None;
    for cache in ["/var/cache/dnf", "/var/cache/libdnf5"] {
        for name in root.names(cache) {
            let index = format!("{cache}/{}/repodata/repomd.xml", String::from_utf8_lossy(&name));
            let Some(text) = root.read(&index, 8 << 20) else { continue };
            newest = newest.max(timestamps(&String::from_utf8_lossy(&text)).max());
        }
    }
    // dnf without any is content.
    newest.ok_or_else(|| ImageError::Missing {
        what: "dnf found no repository".to_owned(),
        hint: "name them by `repos`, as addresses of directories with `repodata`: this machine has none configured"
            .to_owned(),
    })
}

/// Of the parts of an index. Some have fractions of seconds (yum's createrepo), which are none of ours.
fn timestamps(text: &str) -> impl Iterator<Item = Timestamp> {
    text.split("<timestamp>").skip(1).filter_map(|rest| {
        let digits = rest.split(['.', '<']).next()?.trim();
        Timestamp::from_second(digits.parse().ok()?).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(releasever: &str) -> Rpm {
        Rpm { releasever: releasever.to_owned(), repos: vec![], keys: vec![], arch: None, include: vec![] }
    }

    #[test]
    fn names_that_could_be_options_or_paths_are_refused() {
        assert!(check(&wanted("41"), "amd64").is_ok());
        let group = Rpm { include: vec!["@core".to_owned(), "libstdc++".to_owned()], ..wanted("9-stream") };
        assert!(check(&group, "amd64").is_ok());
        for bad in ["", "-x", "--help", "../etc", "a b", "a;b", "$(x)", "a\nb", "a*", "@-x", "@"] {
            assert!(check(&wanted(bad), "amd64").is_err(), "release {bad:?}");
            let package = Rpm { include: vec![bad.to_owned()], ..wanted("41") };
            assert!(check(&package, "amd64").is_err(), "package {bad:?}");
            let arch = Rpm { arch: Some(bad.to_owned()), ..wanted("41") };
            assert!(check(&arch, "amd64").is_err(), "architecture {bad:?}");
        }
    }

    #[test]
    fn a_repository_is_one_address_and_no_line_of_the_configuration() {
        for good in ["https://mirror.example/$releasever/$basearch/os/", "http://[::1]:8080/x", "file:///srv/repo"] {
            assert!(is_repository(good), "{good}");
        }
        for bad in [
            "",
            "mirror.example/os",
            "https://",
            "file://srv/repo",
            "https://a/ https://b/",
            "https://a/,https://b/",
            "https://a/\ngpgcheck=0",
            "https://user:secret@a/",
        ] {
            assert!(!is_repository(bad), "{bad:?}");
        }
    }

    #[test]
    fn an_index_tells_when_it_was_made() {
        let text = "<repomd><revision>9</revision><data><timestamp>1700000000</timestamp></data>\
                    <data><timestamp>1700000100.52</timestamp></data></repomd>";
        assert_eq!(timestamps(text).max().unwrap().to_string(), "2023-11-14T22:15:00Z");
        assert_eq!(timestamps("<timestamp>x</timestamp>").max(), None);
    }

    #[test]
    fn another_architecture_repository_or_package_is_another_tree() {
        let of = |wanted: &Rpm| key(wanted, "amd64");
        let plain = wanted("41");
        assert_eq!(of(&plain), key(&Rpm { arch: Some("x86_64".into()), ..plain.clone() }, "386"));
        for other in [
            wanted("42"),
            Rpm { arch: Some("i686".into()), ..plain.clone() },
            Rpm { repos: vec!["file:///a".into()], ..plain.clone() },
            Rpm { keys: vec!["a".into()], ..plain.clone() },
            Rpm { include: vec!["bash".into()], ..plain.clone() },
        ] {
            assert_ne!(of(&other), of(&plain), "{other:?}");
        }
    }
}
