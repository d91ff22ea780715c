//! Engine options: what the matrix may ask of an engine beyond running the image.
//!
//! In: the `options` table of an `[[engine]]`. Out: [`EngineOptions`], validated as far as one can without an engine. Each
//! engine honours an option, or says in the notes of an attempt that it did not. This room knows no engine.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Options of one engine of the matrix. Everything unset means: as the engine does by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineOptions {
    /// The seccomp profile: `"default"` (the engine's own), `"docker"` or `"podman"` (that engine's default, under another),
    /// `"unconfined"`, or the path of a profile in JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Seccomp>,
    /// All capabilities, all devices, no seccomp, no masked paths.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// Capabilities added to and dropped from the engine's default set, with or without `CAP_`; `ALL` is allowed.
    #[serde(skip_serializing_if = "Capabilities::is_empty")]
    pub capabilities: Capabilities,
    /// The AppArmor profile: a name, or `"unconfined"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<String>,
    /// The SELinux label: `"disable"`, or `type:…`, `level:…`, `role:…`, `user:…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selinux: Option<String>,
    /// The user namespace, in the engine's own words: `"host"`, `"keep-id"`, `"auto"`…
    #[serde(skip_serializing_if = "Option::is_none")]
    pub userns: Option<String>,
    /// The network: `"none"` (the default: loopback only), `"host"`, `"bridge"`, or the name of a network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The root file system cannot be written.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// tmpfs mounts: `"/tmp"` or `"/tmp:size=64m,noexec"`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<String>,
    /// Size of `/dev/shm`: bytes, or text such as `"64MiB"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<Size>,
    /// Resource limits by name: `nofile = 1024`, `nproc = { soft = 64, hard = 128 }`; -1 is unlimited.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Devices: `"/dev/fuse"`, `"/dev/sda:/dev/xvda"`, `"/dev/fuse:/dev/fuse:rw"`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// Most processes and threads at once; -1 is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<i64>,
    /// Memory limit, with no swap beyond it: bytes, or text such as `"256MiB"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// CPU time limit in CPUs: `0.5`, `2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Cpus>,
    /// The platform asked for: `"linux/386"`, `"linux/arm64/v8"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The user: `"1000"`, `"1000:1000"`, `"nobody"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

impl EngineOptions {
    /// The names of the options that are set, in the matrix's words; an engine that lacks one names it by this.
    pub fn set(&self) -> Vec<&'static str> {
        [
            (self.seccomp.is_some(), "seccomp"),
            (self.privileged, "privileged"),
            (!self.capabilities.is_empty(), "capabilities"),
            (self.apparmor.is_some(), "apparmor"),
            (self.selinux.is_some(), "selinux"),
            (self.userns.is_some(), "userns"),
            (self.network.is_some(), "network"),
            (self.read_only, "read_only"),
            (!self.tmpfs.is_empty(), "tmpfs"),
            (self.shm_size.is_some(), "shm_size"),
            (!self.ulimits.is_empty(), "ulimits"),
            (!self.devices.is_empty(), "devices"),
            (self.pids_limit.is_some(), "pids_limit"),
            (self.memory.is_some(), "memory"),
            (self.cpus.is_some(), "cpus"),
            (self.platform.is_some(), "platform"),
            (self.user.is_some(), "user"),
        ]
        .into_iter()
        .filter_map(|(set, name)| set.then_some(name))
        .collect()
    }

    /// The AppArmor profile to ask for, where one is.
    pub(super) fn apparmor_profile(&self) -> Option<&str> {
        self.apparmor.as_deref().filter(|profile| *profile != "unconfined")
    }

    /// The SELinux label to ask for, where one is.
    pub(super) fn selinux_label(&self) -> Option<&str> {
        self.selinux.as_deref().filter(|label| *label != "disable")
    }
}

/// Which seccomp profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Seccomp {
    /// The engine's own default.
    Default,
    /// What docker 20.10 applies unasked.
    Docker,
    /// What podman applies unasked, of containers-common 0.50.
    Podman,
    /// None.
    Unconfined,
    /// A profile in JSON, in docker's or OCI's form.
    File(PathBuf),
}

impl From<String> for Seccomp {
    fn from(text: String) -> Self {
        match text.as_str() {
            "default" => Self::Default,
            "docker" => Self::Docker,
            "podman" => Self::Podman,
            "unconfined" => Self::Unconfined,
            _ => Self::File(text.into()),
        }
    }
}

impl From<Seccomp> for String {
    fn from(seccomp: Seccomp) -> Self {
        match seccomp {
            Seccomp::Default => "default".to_owned(),
            Seccomp::Docker => "docker".to_owned(),
            Seccomp::Podman => "podman".to_owned(),
            Seccomp::Unconfined => "unconfined".to_owned(),
            Seccomp::File(path) => path.to_string_lossy().into_owned(),
        }
    }
}

/// Capabilities relative to the engine's default set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capabilities {
    /// Added.
    pub add: Vec<String>,
    /// Dropped.
    pub drop: Vec<String>,
}

impl Capabilities {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.drop.is_empty()
    }
}

/// A number of bytes, written as a number or as text with a binary unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "SizeText", into = "u64")]
pub struct Size(pub u64);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number of bytes, or text such as \"64MiB\"")]
enum SizeText {
    Number(u64),
    Text(String),
}

impl TryFrom<SizeText> for Size {
    type Error = String;
    fn try_from(text: SizeText) -> Result<Self, String> {
        match text {
            SizeText::Number(bytes) => Ok(Self(bytes)),
            SizeText::Text(text) => text.parse(),
        }
    }
}

impl std::str::FromStr for Size {
    type Err = String;
    /// Units are powers of 1024 whatever their spelling (`64m`, `64M`, `64MB`, `64MiB`), as docker reads them.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a size: expected a number of bytes, or text such as `64MiB`");
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(wrong)
    }
}

impl From<Size> for u64 {
    fn from(size: Size) -> u64 {
        size.0
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

/// A resource limit; -1 is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "UlimitText")]
pub struct Ulimit {
    /// What the program gets.
    pub soft: i64,
    /// How far it may raise it.
    pub hard: i64,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number, or { soft = number, hard = number }")]
enum UlimitText {
    Both(i64),
    Each(UlimitPair),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UlimitPair {
    soft: i64,
    hard: i64,
}

impl From<UlimitText> for Ulimit {
    fn from(text: UlimitText) -> Self {
        match text {
            UlimitText::Both(limit) => Self { soft: limit, hard: limit },
            UlimitText::Each(pair) => Self { soft: pair.soft, hard: pair.hard },
        }
    }
}

/// A number of CPUs, kept in billionths as the engines' APIs take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "CpusText", into = "f64")]
pub struct Cpus {
    /// Billionths of a CPU.
    pub nano: u64,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a number of CPUs such as 0.5 or 2")]
enum CpusText {
    Whole(u64),
    Part(f64),
}

impl TryFrom<CpusText> for Cpus {
    type Error = String;
    fn try_from(text: CpusText) -> Result<Self, String> {
        let cpus = match text {
            CpusText::Whole(n) => n as f64,
            CpusText::Part(n) => n,
        };
        if !(cpus > 0.0 && cpus <= 65_536.0) {
            return Err(format!("`{cpus}` is not a number of CPUs: expected more than 0 and at most 65536"));
        }
        Ok(Self { nano: (cpus * 1e9).round() as u64 })
    }
}

impl From<Cpus> for f64 {
    fn from(cpus: Cpus) -> f64 {
        cpus.nano as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<EngineOptions, String> {
        toml::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn every_option_is_read_as_it_is_documented() {
        let options = parse(
            r#"
            seccomp = "profiles/strict.json"
            privileged = true
            capabilities = { add = ["SYS_PTRACE"], drop = ["ALL"] }
            apparmor = "unconfined"
            selinux = "disable"
            userns = "host"
            network = "bridge"
            read_only = true
            tmpfs = ["/tmp:size=64m"]
            shm_size = "64MiB"
            ulimits = { nofile = 1024, nproc = { soft = 64, hard = -1 } }
            devices = ["/dev/fuse"]
            pids_limit = 100
            memory = 33554432
            cpus = 0.5
            platform = "linux/386"
            user = "1000:1000"
            "#,
        )
        .unwrap();
        assert_eq!(options.seccomp, Some(Seccomp::File("profiles/strict.json".into())));
        assert_eq!(options.shm_size, Some(Size(64 << 20)));
        assert_eq!(options.memory, Some(Size(32 << 20)));
        assert_eq!(options.ulimits["nofile"], Ulimit { soft: 1024, hard: 1024 });
        assert_eq!(options.ulimits["nproc"], Ulimit { soft: 64, hard: -1 });
        assert_eq!(options.cpus, Some(Cpus { nano: 500_000_000 }));
        assert_eq!(options.set().len(), 17, "an option is missing from `set`: {:?}", options.set());
    }

    #[test]
    fn a_profile_is_named_or_a_path() {
        let named = |text: &str| parse(&format!("seccomp = '{text}'")).unwrap().seccomp.unwrap();
        for (text, profile) in [
            ("default", Seccomp::Default),
            ("docker", Seccomp::Docker),
            ("podman", Seccomp::Podman),
            ("unconfined", Seccomp::Unconfined),
            ("./docker", Seccomp::File("./docker".into())),
        ] {
            assert_eq!(named(text), profile);
            assert_eq!(String::from(profile), text);
        }
    }

    /// One value for each option, in the order of `set`.
    const EACH: [&str; 17] = [
        "seccomp = 'profile.json'",
        "privileged = true",
        "capabilities = { add = ['KILL'] }",
        "apparmor = 'mine'",
        "selinux = 'u:r:t:s0'",
        "userns = 'private'",
        "network = 'host'",
        "read_only = true",
        "tmpfs = ['/t']",
        "shm_size = 5",
        "ulimits = { nofile = 5 }",
        "devices = ['/dev/fuse']",
        "pids_limit = 5",
        "memory = 5",
        "cpus = 1",
        "platform = 'linux/386'",
        "user = '5'",
    ];

    #[test]
    fn the_table_of_the_readme_is_what_the_engines_say() {
        use crate::engine::builtin::settings::BUILT_IN;
        use crate::engine::command::Kind;
        let all = parse(&EACH.join("\n")).unwrap().set();
        let kinds = [Kind::Oci, Kind::Bubblewrap, Kind::Nspawn, Kind::Apptainer];
        let mut table = "| option | docker, podman | built-in | oci | bubblewrap | nspawn | apptainer |\n|---|---|---|---|---|---|---|\n".to_owned();
        for (option, text) in all.iter().zip(EACH) {
            let options = parse(text).unwrap();
            assert_eq!(options.set(), [*option]);
            let built_in = !BUILT_IN.lacks.contains(option);
            let commands = kinds.map(|kind| !kind.manner().lacks.contains(option) && kind.check(&options).is_ok());
            let cells = [true, built_in].into_iter().chain(commands).map(|has| if has { " ✓ |" } else { " – |" });
            table += &format!("| `{option}` |{}\n", cells.collect::<String>());
        }
        assert!(include_str!("../../README.md").contains(&table), "README.md should have:\n{table}");
    }

    #[test]
    fn an_unset_table_asks_for_nothing() {
        assert_eq!(parse("").unwrap(), EngineOptions::default());
        assert!(EngineOptions::default().set().is_empty());
    }

    #[test]
    fn options_survive_being_written_and_read() {
        let options = parse("seccomp = 'unconfined'\ncpus = 2\nulimits = { nofile = 5 }\nmemory = '1g'").unwrap();
        let json = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<EngineOptions>(&json).unwrap(), options, "{json}");
    }

    #[test]
    fn an_unknown_option_is_refused_and_the_right_names_are_listed() {
        let error = parse("secomp = 'default'").unwrap_err();
        assert!(error.contains("secomp") && error.contains("seccomp"), "{error}");
        assert!(parse("capabilities = { plus = ['ALL'] }").is_err());
    }

    #[test]
    fn sizes_that_are_none_are_refused() {
        for bad in ["'64 parsecs'", "''", "'MiB'", "'99999999999999t'", "-1", "1.5"] {
            assert!(parse(&format!("memory = {bad}")).is_err(), "{bad} was accepted");
        }
        for bad in ["0", "-1", "nan", "'two'"] {
            assert!(parse(&format!("cpus = {bad}")).is_err(), "cpus = {bad} was accepted");
        }
    }
}
