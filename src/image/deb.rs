//! Packages of Debian, Ubuntu and their like → a root file system, made by mmdebstrap from its default mirror.
//!
//! In: a [`Deb`] and a private directory. Out: a tar archive in it, the same bytes for the same packages, and what
//! the mirror said about the suite. Nothing of the matrix reaches a shell: names are checked, and arguments are passed one
//! by one.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::blob::Cancel;
use super::bootstrap::{Made, plain};
use super::error::ImageError;
use super::root::Root;
use super::store::{Progress, Step};
use super::{Deb, mmdebstrap};

const VARIANTS: [&str; 10] =
    ["extract", "custom", "essential", "apt", "minbase", "required", "buildd", "important", "debootstrap", "standard"];
/// Distributions of RPM packages, as people begin the name of one.
const RPM: [&str; 10] =
    ["almalinux", "amazonlinux", "centos", "fedora", "mageia", "openeuler", "opensuse", "oraclelinux", "rhel", "rocky"];
/// Hooks that remove what comes from this machine and not from the packages: fixed text, for mmdebstrap's shell.
const FORGET: [&str; 2] = [
    // mmdebstrap copies both from the machine it runs on.
    r#"rm -f "$1/etc/hostname" "$1/etc/resolv.conf""#,
    r#"rm -rf "$1/var/log/apt" "$1/var/log/dpkg.log" "$1/var/log/alternatives.log" "$1/var/log/bootstrap.log""#,
];

/// What makes two bootstraps the same.
pub fn key(wanted: &Deb, architecture: &str) -> String {
    let include = wanted.include.join(",");
    format!("bootstrap 1 {} {} {} {include}", wanted.suite, debian(wanted, architecture), variant(wanted))
}

/// Makes the root file system in `work`, which nobody else uses.
pub fn make(
    wanted: &Deb,
    architecture: &str,
    work: &Path,
    cancel: &Cancel,
    progress: &Progress,
) -> Result<Made, ImageError> {
    check(wanted, architecture)?;
    let tool = mmdebstrap::version()?;
    let superuser = rustix::process::geteuid().is_root();
    let say = |what: &str| progress(Step { what: &format!("{}: {what}", wanted.suite), done: 0, total: None });

    // The time of the suite has to be known before anything is made: a dry run fetches the indexes, and they tell.
    say("reading the indexes of the mirror");
    let lists = tempfile::tempdir().map_err(ImageError::io("could not make a directory in", &std::env::temp_dir()))?;
    let indexes = lists.path().join("dry");
    let mut dry = command(wanted, architecture, superuser);
    dry.args(["--simulate", "--skip=cleanup/apt"]).arg(&wanted.suite).arg(&indexes);
    // In a user namespace mmdebstrap's root is somebody else, who has to get at the directory.
    fs::set_permissions(
        lists.path(),
        std::os::unix::fs::PermissionsExt::from_mode(if superuser { 0o700 } else { 0o777 }),
    )
    .map_err(ImageError::io("could not open up", lists.path()))?;
    let dried = mmdebstrap::run(dry, &wanted.suite, cancel, &say).and_then(|()| releases(&indexes));
    if !superuser {
        // What the namespace's root made only it can remove.
        drop(mmdebstrap::as_its_root(&["rm", "-rf"]).arg(&indexes).stderr(Stdio::null()).status());
    }
    let releases = dried?;
    let suite = releases
        .iter()
        .find(|release| release.codename == wanted.suite || release.suite == wanted.suite)
        .or_else(|| releases.first())
        .ok_or_else(|| ImageError::Malformed(format!("the mirror has no release file for suite `{}`", wanted.suite)))?;
    let newest = releases.iter().map(|release| release.date).max().unwrap_or(suite.date);

    let archive = work.join("bootstrap.tar");
    let install = |extra: Option<&str>| {
        let mut real = command(wanted, architecture, superuser);
        real.arg("--format=tar").env("SOURCE_DATE_EPOCH", newest.as_second().to_string());
        for hook in FORGET {
            real.arg(format!("--customize-hook={hook}"));
        }
        real.args(extra).arg(&wanted.suite).arg(&archive);
        mmdebstrap::run(real, &wanted.suite, cancel, &say)
    };
    let without = mmdebstrap::twice(install, &say)?;

    let created = suite.date.to_string();
    let facts = [
        ("bootstrap.suite", wanted.suite.clone()),
        ("bootstrap.suite.date", created.clone()),
        ("bootstrap.suite.version", suite.version.clone()),
        ("bootstrap.arch", debian(wanted, architecture)),
        ("bootstrap.variant", variant(wanted).to_owned()),
        ("bootstrap.include", wanted.include.join(" ")),
        ("bootstrap.without", without.to_owned()),
        ("bootstrap.tool", tool),
    ];
    let facts = facts.into_iter().filter(|(_, value)| !value.is_empty());
    Ok(Made { archive, facts: facts.map(|(name, value)| (name.to_owned(), value)).collect(), created })
}

fn variant(wanted: &Deb) -> &str {
    wanted.variant.as_deref().unwrap_or("minbase")
}

/// Debian's name of the architecture wanted.
fn debian(wanted: &Deb, architecture: &str) -> String {
    wanted.arch.clone().unwrap_or_else(|| {
        match architecture {
            "386" => "i386",
            "arm" => "armhf",
            "ppc64le" => "ppc64el",
            "mips64le" => "mips64el",
            other => other,
        }
        .to_owned()
    })
}

fn check(wanted: &Deb, architecture: &str) -> Result<(), ImageError> {
    let refuse = |what: &str, name: &str| {
        Err(ImageError::Missing {
            what: format!("`{name:.100}` is not {what}"),
            hint: "see mmdebstrap(1) for what `bootstrap` takes".to_owned(),
        })
    };
    if !plain(&wanted.suite, ".-_") {
        return refuse("the name of a suite", &wanted.suite);
    }
    if let Some(name) = RPM.iter().find(|name| wanted.suite.to_ascii_lowercase().starts_with(**name)) {
        return Err(ImageError::Missing {
            what: format!("`{}` has RPM packages, and a `suite` is one of Debian, Ubuntu and their like", wanted.suite),
            hint: format!(
                "write `bootstrap = {{ releasever = \"N\", repos = [\"URL of a mirror of {name}\"] }}`, which dnf makes"
            ),
        });
    }
    if !plain(&debian(wanted, architecture), "-") {
        return refuse("an architecture", &debian(wanted, architecture));
    }
    if !VARIANTS.contains(&variant(wanted)) {
        return refuse("a variant of mmdebstrap", variant(wanted));
    }
    match wanted.include.iter().find(|package| !plain(package, ".-+:=~")) {
        Some(package) => refuse("the name of a package", package),
        None => Ok(()),
    }
}

fn command(wanted: &Deb, architecture: &str, superuser: bool) -> Command {
    let mut command = mmdebstrap::command(superuser);
    command.arg(format!("--variant={}", variant(wanted)));
    command.arg(format!("--architectures={}", debian(wanted, architecture)));
    if !wanted.include.is_empty() {
        command.arg(format!("--include={}", wanted.include.join(",")));
    }
    command
}

/// What a release file says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Release {
    date: Timestamp,
    suite: String,
    codename: String,
    version: String,
}

/// The release files that apt fetched, by name.
fn releases(root: &Path) -> Result<Vec<Release>, ImageError> {
    let lists = Root::open(root)?;
    let mut found = Vec::new();
    for name in lists.names("/var/lib/apt/lists") {
        let name = String::from_utf8_lossy(&name).into_owned();
        if !name.ends_with("_InRelease") && !name.ends_with("_Release") {
            continue;
        }
        let text = lists.read(&format!("/var/lib/apt/lists/{name}"), 8 << 20).unwrap_or_default();
        found.extend(release(&String::from_utf8_lossy(&text)));
    }
    Ok(found)
}

fn release(text: &str) -> Option<Release> {
    let field = |key: &str| {
        let line = text.lines().take(60).find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.map(super::inspect::printable).unwrap_or_default()
    };
    let date = field("Date").replace(" UTC", " +0000").replace(" GMT", " +0000");
    let date = rfc2822::DateTimeParser::new().parse_timestamp(&date).ok()?;
    Some(Release { date, suite: field("Suite"), codename: field("Codename"), version: field("Version") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(suite: &str) -> Deb {
        Deb { suite: suite.to_owned(), arch: None, variant: None, include: vec![] }
    }

    #[test]
    fn a_release_file_tells_when_the_suite_was_released() {
        let text = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOrigin: Debian\nSuite: oldstable\nVersion: 12.15\n\
                    Codename: bookworm\nDate: Sat, 11 Jul 2026 10:16:37 UTC\nSHA256:\n";
        let release = release(text).unwrap();
        assert_eq!(release.date.to_string(), "2026-07-11T10:16:37Z");
        assert_eq!(
            (release.suite.as_str(), release.codename.as_str(), release.version.as_str()),
            ("oldstable", "bookworm", "12.15")
        );
    }

    #[test]
    fn names_that_could_be_options_or_paths_are_refused() {
        assert!(check(&wanted("bookworm"), "amd64").is_ok());
        for bad in ["", "-x", "--help", "../etc", "a b", "a;b", "$(x)"] {
            assert!(check(&wanted(bad), "amd64").is_err(), "suite {bad:?}");
            let package = Deb { include: vec![bad.to_owned()], ..wanted("sid") };
            assert!(check(&package, "amd64").is_err(), "package {bad:?}");
            let arch = Deb { arch: Some(bad.to_owned()), ..wanted("sid") };
            assert!(check(&arch, "amd64").is_err(), "architecture {bad:?}");
        }
        let variant = Deb { variant: Some("minibase".to_owned()), ..wanted("sid") };
        assert!(check(&variant, "amd64").unwrap_err().to_string().contains("minibase"));
    }

    #[test]
    fn a_distribution_of_rpm_packages_is_refused_with_how_to_write_it() {
        for suite in ["fedora-40", "Rocky9", "centos-stream-9"] {
            let ImageError::Missing { what, hint } = check(&wanted(suite), "amd64").unwrap_err() else {
                panic!("{suite}: another error")
            };
            assert!(what.contains(suite) && hint.contains("releasever") && hint.contains("dnf"), "{what}: {hint}");
        }
    }

    #[test]
    fn another_architecture_is_another_bootstrap() {
        let foreign = Deb { arch: Some("i386".to_owned()), ..wanted("bullseye") };
        assert_ne!(key(&foreign, "amd64"), key(&wanted("bullseye"), "amd64"));
        assert_eq!(key(&foreign, "amd64"), key(&wanted("bullseye"), "386"));
    }
}
