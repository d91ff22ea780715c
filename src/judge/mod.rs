//! Observations → outcomes. In: what was seen, and the catalogue. Out: pass, fail, skip, error or miss, and a verdict per
//! cell. Pure, repeatable over old runs, never rewrites what was seen; knows no container and no file.

mod attributes;
pub mod bits;
pub mod blame;
pub mod cause;
mod cell;
mod contract;
mod kin;
pub mod known;
pub mod learn;
pub mod mechanism;
pub mod profile;
pub mod roster;
pub mod scene;
pub mod waive;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use cell::{Counts, JudgedCell, JudgedCheck, UNKNOWN_CHECK, Verdict, judge_cell};
pub use contract::judge;

use crate::fault::Fault;

/// What a check came to. *Fail* blames the subject, *error* the rig.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The contract is met.
    Pass,
    /// The contract is broken.
    Fail {
        /// How.
        failure: Failure,
    },
    /// The question was not asked.
    Skip {
        /// Why.
        why: String,
    },
    /// The rig broke.
    Error {
        /// Where and why.
        fault: Fault,
    },
    /// It was planned and never reported.
    Miss,
}

/// How a contract was broken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum Failure {
    /// A call was refused with an errno that callers do not expect.
    Refused {
        /// The errno.
        errno: i32,
        /// Who refused, where that is known.
        by: Refuser,
        /// Which step of the check.
        step: Option<String>,
    },
    /// It is not there (ENOSYS) where it has to be.
    Absent {
        /// Who says so, where that is known.
        by: Refuser,
        /// Which step of the check.
        step: Option<String>,
    },
    /// A signal killed the program that asked.
    Killed {
        /// The signal.
        signal: i32,
        /// Who sent it, where that is known.
        by: Refuser,
    },
    /// It did not end.
    Hung {
        /// After how many milliseconds it was killed.
        ms: u64,
    },
    /// The answer is wrong.
    Wrong {
        /// The answer.
        value: String,
        /// Which step of the check.
        step: Option<String>,
    },
}

/// Who refused a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Refuser {
    /// The seccomp filter: it gives this answer without the call being made.
    Filter,
    /// The kernel: the filter lets the call through.
    Kernel,
    /// The filter could not be asked.
    Unknown,
}

impl Outcome {
    /// The one word for it, as in the CSV.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail { .. } => "fail",
            Self::Skip { .. } => "skip",
            Self::Error { .. } => "error",
            Self::Miss => "miss",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |step: &Option<String>| step.as_ref().map(|step| format!(" at `{step}`")).unwrap_or_default();
        match self {
            Self::Refused { errno, by, step } => write!(f, "refused with {}{}{}", errno_name(*errno), by, at(step)),
            Self::Absent { by, step } => write!(f, "absent (ENOSYS){}{}", by, at(step)),
            Self::Killed { signal, by } => write!(f, "killed by {}{}", signal_name(*signal), by),
            Self::Hung { ms } => write!(f, "hung, killed after {ms} ms"),
            Self::Wrong { value, step } => write!(f, "wrong: {value}{}", at(step)),
        }
    }
}

impl fmt::Display for Refuser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Filter => " by the seccomp filter",
            Self::Kernel => " by the kernel",
            Self::Unknown => "",
        })
    }
}

/// `EPERM` for 1; numbers that have no name are printed as `errno N`.
pub fn errno_name(errno: i32) -> String {
    ERRNO_NAMES
        .iter()
        .find(|(number, _)| *number == errno)
        .map_or_else(|| format!("errno {errno}"), |(_, name)| (*name).to_owned())
}

/// The number of `EPERM`.
pub fn errno_number(name: &str) -> Option<i32> {
    ERRNO_NAMES.iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
}

/// `SIGSYS` for 31; numbers that have no name are printed as `signal N`.
pub fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    usize::try_from(signal - 1)
        .ok()
        .and_then(|index| NAMES.get(index))
        .map_or_else(|| format!("signal {signal}"), |name| format!("SIG{name}"))
}

/// `errno(3)`, asm-generic numbers; x86-64, aarch64 and i386 agree on these.
const ERRNO_NAMES: [(i32, &str); 82] = [
    (1, "EPERM"),
    (2, "ENOENT"),
    (3, "ESRCH"),
    (4, "EINTR"),
    (5, "EIO"),
    (6, "ENXIO"),
    (7, "E2BIG"),
    (8, "ENOEXEC"),
    (9, "EBADF"),
    (10, "ECHILD"),
    (11, "EAGAIN"),
    (12, "ENOMEM"),
    (13, "EACCES"),
    (14, "EFAULT"),
    (15, "ENOTBLK"),
    (16, "EBUSY"),
    (17, "EEXIST"),
    (18, "EXDEV"),
    (19, "ENODEV"),
    (20, "ENOTDIR"),
    (21, "EISDIR"),
    (22, "EINVAL"),
    (23, "ENFILE"),
    (24, "EMFILE"),
    (25, "ENOTTY"),
    (26, "ETXTBSY"),
    (27, "EFBIG"),
    (28, "ENOSPC"),
    (29, "ESPIPE"),
    (30, "EROFS"),
    (31, "EMLINK"),
    (32, "EPIPE"),
    (33, "EDOM"),
    (34, "ERANGE"),
    (35, "EDEADLK"),
    (36, "ENAMETOOLONG"),
    (37, "ENOLCK"),
    (38, "ENOSYS"),
    (39, "ENOTEMPTY"),
    (40, "ELOOP"),
    (42, "ENOMSG"),
    (61, "ENODATA"),
    (62, "ETIME"),
    (71, "EPROTO"),
    (74, "EBADMSG"),
    (75, "EOVERFLOW"),
    (84, "EILSEQ"),
    (87, "EUSERS"),
    (88, "ENOTSOCK"),
    (89, "EDESTADDRREQ"),
    (90, "EMSGSIZE"),
    (91, "EPROTOTYPE"),
    (92, "ENOPROTOOPT"),
    (93, "EPROTONOSUPPORT"),
    (94, "ESOCKTNOSUPPORT"),
    (95, "EOPNOTSUPP"),
    (96, "EPFNOSUPPORT"),
    (97, "EAFNOSUPPORT"),
    (98, "EADDRINUSE"),
    (99, "EADDRNOTAVAIL"),
    (100, "ENETDOWN"),
    (101, "ENETUNREACH"),
    (102, "ENETRESET"),
    (103, "ECONNABORTED"),
    (104, "ECONNRESET"),
    (105, "ENOBUFS"),
    (106, "EISCONN"),
    (107, "ENOTCONN"),
    (110, "ETIMEDOUT"),
    (111, "ECONNREFUSED"),
    (112, "EHOSTDOWN"),
    (113, "EHOSTUNREACH"),
    (114, "EALREADY"),
    (115, "EINPROGRESS"),
    (116, "ESTALE"),
    (122, "EDQUOT"),
    (123, "ENOMEDIUM"),
    (124, "EMEDIUMTYPE"),
    (125, "ECANCELED"),
    (126, "ENOKEY"),
    (129, "EKEYREJECTED"),
    (133, "EHWPOISON"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errnos_and_signals_have_their_names() {
        assert_eq!(errno_name(38), "ENOSYS");
        assert_eq!(errno_number("EOPNOTSUPP"), Some(95));
        assert_eq!(errno_name(4095), "errno 4095");
        assert_eq!(signal_name(31), "SIGSYS");
        assert_eq!(signal_name(4), "SIGILL");
        assert_eq!(signal_name(64), "signal 64");
        assert_eq!(signal_name(0), "signal 0");
    }
}
