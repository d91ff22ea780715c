//! Capabilities by name and by bit. Pure.

/// Names in the order of their numbers, capabilities(7).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What docker gives a container that asks for nothing.
const DOCKER: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A set of capabilities, bit n for capability n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capabilities(pub(crate) u64);

/// A name that is not a capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a capability; names are as in capabilities(7), with or without CAP_, or ALL")]
pub struct UnknownCapability(String);

impl Capabilities {
    /// All that this driver knows by name.
    pub(crate) const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// Docker's default.
    pub(crate) fn docker() -> Self {
        DOCKER.iter().filter_map(|name| bit(name)).fold(Self(0), |set, bit| Self(set.0 | bit))
    }

    /// The set with additions and without what is dropped, by docker's rules: `ALL` first, single names then.
    pub(crate) fn change(self, add: &[String], drop: &[String]) -> Result<Self, UnknownCapability> {
        let all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("ALL"));
        let mut set = match (all(add), all(drop)) {
            (true, _) => Self::ALL.0,
            (false, true) => 0,
            (false, false) => self.0,
        };
        for name in add {
            set |= named(name)?;
        }
        for name in drop {
            if !name.eq_ignore_ascii_case("ALL") {
                set &= !named(name)?;
            }
        }
        Ok(Self(set))
    }

    /// Whether `CAP_SYS_ADMIN` and the like is in the set; unknown names are not.
    pub(crate) fn has(self, name: &str) -> bool {
        bit(name).is_some_and(|bit| self.0 & bit != 0)
    }

    /// The names, `CHOWN KILL…`.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().enumerate().filter(move |(n, _)| self.0 & (1 << n) != 0).map(|(_, name)| *name)
    }
}

/// 0 for `ALL`, which `change` has dealt with.
fn named(name: &str) -> Result<u64, UnknownCapability> {
    if name.eq_ignore_ascii_case("ALL") {
        return Ok(0);
    }
    bit(name).ok_or_else(|| UnknownCapability(name.chars().take(40).collect()))
}

fn bit(name: &str) -> Option<u64> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    NAMES.iter().position(|known| *known == name).map(|n| 1 << n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_default_is_the_mask_a_docker_container_shows() {
        assert_eq!(Capabilities::docker().0, 0x0000_0000_a804_25fb);
    }

    #[test]
    fn all_comes_before_single_names() {
        let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let of = |add: &[&str], drop: &[&str]| Capabilities::docker().change(&names(add), &names(drop)).unwrap();
        assert_eq!(of(&["net_raw"], &["ALL"]).0, 1 << 13);
        assert_eq!(of(&["ALL"], &["CAP_SYS_ADMIN"]).0, Capabilities::ALL.0 & !(1 << 21));
        assert_eq!(of(&[], &["CHOWN"]).0, Capabilities::docker().0 & !1);
        assert!(Capabilities::docker().change(&names(&["CAP_FLY"]), &[]).is_err());
    }
}
