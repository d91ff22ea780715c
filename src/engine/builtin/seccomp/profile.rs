//! Reads profiles and resolves them: which rules are in force here, and what each answers. Pure.

use serde::Deserialize;
use serde_json::{Value, json};

use super::numbers::Architecture;
use crate::engine::builtin::capabilities::Capabilities;

/// What a profile is resolved against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings {
    /// What the program may have.
    pub(crate) capabilities: Capabilities,
    /// Major and minor version of the kernel.
    pub(crate) kernel: (u32, u32),
}

/// What is wrong with a profile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfileError {
    #[error("not a seccomp profile: {0}")]
    Json(#[from] serde_json::Error),
    #[error("unknown seccomp action `{0}`")]
    Action(String),
    #[error("seccomp action `{0}` needs a supervisor, which there is not")]
    Unsupported(String),
    #[error("unknown comparison `{0}`")]
    Comparison(String),
    #[error("argument {0} of a system call: there are six, from 0")]
    Index(u32),
    #[error("unknown errno `{0}`")]
    Errno(String),
    #[error("kernel version `{0}` is not MAJOR.MINOR")]
    Kernel(String),
    #[error("the filter has {0} instructions, more than the kernel's 4096")]
    TooLong(usize),
}

/// A profile as docker, podman or the OCI's runtime specification write it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    default_errno: Option<String>,
    /// Docker's and podman's: by the kernel's own architecture.
    #[serde(default)]
    arch_map: Vec<ArchMap>,
    /// The OCI's.
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    syscalls: Vec<Entry>,
    #[serde(skip)]
    default: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    names: Vec<String>,
    name: Option<String>,
    action: String,
    errno_ret: Option<u32>,
    errno: Option<String>,
    args: Option<Vec<Args>>,
    #[serde(default)]
    includes: Filter,
    #[serde(default)]
    excludes: Filter,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Args {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    caps: Vec<String>,
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// A rule in force.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) names: Vec<String>,
    /// All must hold.
    pub(crate) arguments: Vec<Argument>,
    /// A `SECCOMP_RET_` value.
    pub(crate) answer: u32,
}

/// A condition on one argument of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Argument {
    pub(crate) index: u32,
    pub(crate) test: Test,
}

/// `argument OP value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Test {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    /// `argument & .0 == .1`
    Masked(u64, u64),
}

/// `SECCOMP_RET_ERRNO` with a number.
pub(crate) fn errno(number: u32) -> u32 {
    0x0005_0000 | (number & 0xffff)
}

const EPERM: u32 = 1;
const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;

impl Profile {
    pub(crate) fn parse(json: &str) -> Result<Self, ProfileError> {
        let mut profile: Self = serde_json::from_str(json)?;
        profile.default =
            answer(&profile.default_action, profile.default_errno_ret, profile.default_errno.as_deref(), EPERM)?;
        Ok(profile)
    }

    /// What calls without a rule get.
    pub(crate) fn default_answer(&self) -> u32 {
        self.default
    }

    /// Whether calls without a rule are refused, and not by saying that they are absent.
    pub(crate) fn default_refuses(&self) -> bool {
        !matches!(self.default, ALLOW | LOG) && self.default != errno(super::ENOSYS)
    }

    /// Whether programs of this architecture are allowed at all; a profile that names none means the kernel's own.
    pub(crate) fn covers(&self, arch: Architecture) -> bool {
        let native = Architecture::X86_64.scmp();
        let own = self.arch_map.iter().find(|map| map.architecture == native);
        arch == Architecture::X86_64
            || self.architectures.iter().any(|name| name == arch.scmp())
            || own.is_some_and(|map| map.sub_architectures.iter().any(|name| name == arch.scmp()))
    }

    /// The same profile as the OCI's runtime specification wants it: only what is in force here, in its order.
    pub(crate) fn oci(&self, around: &Surroundings) -> Result<Value, ProfileError> {
        let own = self.arch_map.iter().find(|map| map.architecture == Architecture::X86_64.scmp());
        let architectures = match own {
            Some(map) => [std::slice::from_ref(&map.architecture), &map.sub_architectures].concat(),
            None => self.architectures.clone(),
        };
        let mut syscalls = vec![];
        for entry in &self.syscalls {
            if !entry.includes.all(around)? || entry.excludes.any(around)? {
                continue;
            }
            let mut call = json!({ "action": entry.action });
            call["names"] = entry.names.iter().chain(&entry.name).cloned().collect();
            if let Some(number) = number(entry.errno_ret, entry.errno.as_deref())? {
                call["errnoRet"] = number.into();
            }
            if let Some(args) = entry.args.as_ref().filter(|args| !args.is_empty()) {
                call["args"] = args.iter().map(Args::oci).collect();
            }
            syscalls.push(call);
        }
        let mut oci = json!({ "defaultAction": self.default_action, "syscalls": syscalls });
        if !architectures.is_empty() {
            oci["architectures"] = architectures.into();
        }
        if let Some(number) = number(self.default_errno_ret, self.default_errno.as_deref())? {
            oci["defaultErrnoRet"] = number.into();
        }
        Ok(oci)
    }

    /// The rules in force, in the profile's order.
    pub(crate) fn resolve(&self, around: &Surroundings) -> Result<Vec<Rule>, ProfileError> {
        let mut rules = vec![];
        for entry in &self.syscalls {
            if !entry.includes.all(around)? || entry.excludes.any(around)? {
                continue;
            }
            let answer = answer(&entry.action, entry.errno_ret, entry.errno.as_deref(), EPERM)?;
            let names: Vec<String> = entry.names.iter().chain(&entry.name).cloned().collect();
            let arguments = entry.args.iter().flatten().map(Args::condition).collect::<Result<Vec<_>, _>>()?;
            // Several conditions on one argument are alternatives: runc adds a rule for each.
            let repeated = (0..6).any(|index| arguments.iter().filter(|a| a.index == index).count() > 1);
            if repeated {
                rules.extend(arguments.into_iter().map(|a| Rule { names: names.clone(), arguments: vec![a], answer }));
            } else {
                rules.push(Rule { names, arguments, answer });
            }
        }
        Ok(rules)
    }
}

impl Filter {
    fn all(&self, around: &Surroundings) -> Result<bool, ProfileError> {
        Ok((self.arches.is_empty() || self.arches.iter().any(|arch| arch == "amd64"))
            && self.caps.iter().all(|cap| around.capabilities.has(cap))
            && self.kernel()?.is_none_or(|least| around.kernel >= least))
    }

    fn any(&self, around: &Surroundings) -> Result<bool, ProfileError> {
        Ok(self.arches.iter().any(|arch| arch == "amd64")
            || self.caps.iter().any(|cap| around.capabilities.has(cap))
            || self.kernel()?.is_some_and(|least| around.kernel >= least))
    }

    fn kernel(&self) -> Result<Option<(u32, u32)>, ProfileError> {
        let Some(text) = self.min_kernel.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
        let version = text.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        version.map(Some).ok_or_else(|| ProfileError::Kernel(text.chars().take(40).collect()))
    }
}

impl Args {
    fn oci(&self) -> Value {
        json!({ "index": self.index, "value": self.value, "valueTwo": self.value_two, "op": self.op })
    }

    fn condition(&self) -> Result<Argument, ProfileError> {
        if self.index > 5 {
            return Err(ProfileError::Index(self.index));
        }
        let test = match self.op.as_str() {
            "SCMP_CMP_EQ" => Test::Equal(self.value),
            "SCMP_CMP_NE" => Test::NotEqual(self.value),
            "SCMP_CMP_LT" => Test::Less(self.value),
            "SCMP_CMP_LE" => Test::LessOrEqual(self.value),
            "SCMP_CMP_GT" => Test::Greater(self.value),
            "SCMP_CMP_GE" => Test::GreaterOrEqual(self.value),
            "SCMP_CMP_MASKED_EQ" => Test::Masked(self.value, self.value_two),
            other => return Err(ProfileError::Comparison(other.chars().take(40).collect())),
        };
        Ok(Argument { index: self.index, test })
    }
}

fn answer(action: &str, number: Option<u32>, name: Option<&str>, otherwise: u32) -> Result<u32, ProfileError> {
    Ok(match action {
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_LOG" => LOG,
        "SCMP_ACT_ERRNO" => errno(self::number(number, name)?.unwrap_or(otherwise)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | (number.unwrap_or(otherwise) & 0xffff),
        "SCMP_ACT_NOTIFY" => return Err(ProfileError::Unsupported(action.to_owned())),
        other => return Err(ProfileError::Action(other.chars().take(40).collect())),
    })
}

/// The errno a profile gives by number, or by name.
fn number(number: Option<u32>, name: Option<&str>) -> Result<Option<u32>, ProfileError> {
    match (number, name.filter(|name| !name.is_empty())) {
        (Some(number), _) => Ok(Some(number)),
        (None, Some(name)) => errno_named(name).map(Some),
        (None, None) => Ok(None),
    }
}

/// Podman's profiles name errnos; these are the ones that stand in profiles.
fn errno_named(name: &str) -> Result<u32, ProfileError> {
    Ok(match name {
        "EPERM" => EPERM,
        "ENOENT" => 2,
        "EACCES" => 13,
        "EINVAL" => 22,
        "ENOSYS" => super::ENOSYS,
        "ENOTSUP" | "EOPNOTSUPP" => 95,
        "EAFNOSUPPORT" => 97,
        other => return Err(ProfileError::Errno(other.chars().take(40).collect())),
    })
}
