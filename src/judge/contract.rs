//! One observation against one contract.

use globset::Glob;

use super::{Failure, Outcome, Refuser, errno_number};
use crate::catalog::{Check, Contract};
use crate::collect::{Observation, Saw, Value};

const ENOSYS: i32 = 38;
const EPERM: i32 = 1;

/// Judges one observation by its check's contract.
pub fn judge(check: &Check, observation: &Observation) -> Outcome {
    let step = || observation.step.clone();
    let by = refuser(observation);
    let fail = |failure| Outcome::Fail { failure };
    let refused = |errno: i32| match errno {
        ENOSYS => fail(Failure::Absent { by, step: step() }),
        errno => fail(Failure::Refused { errno, by, step: step() }),
    };
    let wrong = |value: &Value| fail(Failure::Wrong { value: value.to_string(), step: step() });
    match (check.contract, &observation.saw) {
        (_, Saw::NotAsked { why }) => Outcome::Skip { why: why.clone() },
        (Contract::Record, _) => Outcome::Pass,

        (_, Saw::Signal { signal }) => fail(Failure::Killed { signal: *signal, by }),
        (_, Saw::Timeout { ms }) => fail(Failure::Hung { ms: *ms }),

        (Contract::Works, Saw::Ok | Saw::Samples { .. }) => Outcome::Pass,
        (Contract::Works, Saw::Errno { errno }) if allowed(check, *errno) => Outcome::Pass,
        (Contract::Works, Saw::Errno { errno }) => refused(*errno),
        (Contract::Works, Saw::Value { value }) => wrong(value),

        (Contract::Fallback, Saw::Ok | Saw::Samples { .. }) => Outcome::Pass,
        (Contract::Fallback, Saw::Errno { errno }) if *errno == ENOSYS || allowed(check, *errno) => Outcome::Pass,
        (Contract::Fallback, Saw::Errno { errno }) => refused(*errno),
        (Contract::Fallback, Saw::Value { value }) => wrong(value),

        (Contract::Reach, Saw::Ok | Saw::Samples { .. } | Saw::Value { .. }) => Outcome::Pass,
        (Contract::Reach, Saw::Errno { errno }) if *errno == ENOSYS || allowed(check, *errno) => Outcome::Pass,
        (Contract::Reach, Saw::Errno { errno }) => match by {
            // Any other answer of the kernel to senseless arguments shows that the call is there.
            Refuser::Kernel => Outcome::Pass,
            Refuser::Filter => refused(*errno),
            // Without the filter map only EPERM is suspicious.
            Refuser::Unknown if *errno == EPERM => refused(*errno),
            Refuser::Unknown => Outcome::Pass,
        },

        (Contract::Value, Saw::Value { value }) if meets(check, value) => Outcome::Pass,
        (Contract::Value, Saw::Value { value }) => wrong(value),
        (Contract::Value, Saw::Errno { errno }) if allowed(check, *errno) => Outcome::Pass,
        (Contract::Value, Saw::Errno { errno }) => refused(*errno),
        (Contract::Value, Saw::Ok) => wrong(&Value::Text("ok, and no value".into())),
        (Contract::Value, Saw::Samples { .. }) => wrong(&Value::Text("samples, and no value".into())),
    }
}

fn allowed(check: &Check, errno: i32) -> bool {
    check.allow.iter().any(|name| errno_number(name) == Some(errno))
}

fn refuser(observation: &Observation) -> Refuser {
    match observation.filter.as_deref() {
        Some("allow" | "log") => Refuser::Kernel,
        Some("unknown") | None => Refuser::Unknown,
        Some(_) => Refuser::Filter,
    }
}

fn meets(check: &Check, value: &Value) -> bool {
    let text = value.to_string();
    let glob = |pattern: &String| Glob::new(pattern).is_ok_and(|glob| glob.compile_matcher().is_match(&text));
    (check.expect.is_empty() || check.expect.iter().any(glob))
        && check.min.is_none_or(|min| value.number().is_some_and(|number| number >= min))
        && check.max.is_none_or(|max| value.number().is_some_and(|number| number <= max))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(contract: Contract) -> Check {
        let works = Check::works("test.check".parse().unwrap());
        Check { contract, allow: vec!["EOPNOTSUPP".into()], expect: vec!["2.*".into()], ..works }
    }

    fn seen(saw: Saw, filter: Option<&str>) -> Observation {
        Observation { saw, step: None, filter: filter.map(str::to_owned) }
    }

    fn word(contract: Contract, saw: Saw, filter: Option<&str>) -> String {
        match judge(&check(contract), &seen(saw, filter)) {
            Outcome::Fail { failure } => failure.to_string(),
            other => other.word().to_owned(),
        }
    }

    /// Every contract against everything a probe can see.
    #[test]
    fn the_truth_table_of_contracts() {
        let errno = |errno| Saw::Errno { errno };
        let value = |text: &str| Saw::Value { value: Value::Text(text.into()) };
        let samples = || Saw::Samples { unit: "ns".into(), samples: vec![1.0] };
        let by_filter = "refused with EPERM by the seccomp filter";
        let (absent, filtered) = ("absent (ENOSYS)", "absent (ENOSYS) by the seccomp filter");
        let eperm = "refused with EPERM";
        let kernel = "refused with EPERM by the kernel";
        let efault = "refused with EFAULT by the kernel";
        let (killed, hung) = ("killed by SIGSYS by the seccomp filter", "hung, killed after 300 ms");
        // saw, filter, then what it comes to under: works, fallback, reach, value, record
        let table: [(Saw, Option<&str>, [&str; 5]); 15] = [
            (Saw::Ok, None, ["pass", "pass", "pass", "wrong: ok, and no value", "pass"]),
            (errno(38), None, [absent, "pass", "pass", absent, "pass"]),
            (errno(38), Some("errno 38"), [filtered, "pass", "pass", filtered, "pass"]),
            (errno(1), Some("errno 1"), [by_filter, by_filter, by_filter, by_filter, "pass"]),
            (errno(1), Some("allow"), [kernel, kernel, "pass", kernel, "pass"]),
            (errno(1), None, [eperm, eperm, eperm, eperm, "pass"]),
            (errno(14), Some("allow"), [efault, efault, "pass", efault, "pass"]),
            (errno(14), None, ["refused with EFAULT", "refused with EFAULT", "pass", "refused with EFAULT", "pass"]),
            (errno(95), Some("allow"), ["pass"; 5]),
            (Saw::Signal { signal: 31 }, Some("kill"), [killed, killed, killed, killed, "pass"]),
            (Saw::Timeout { ms: 300 }, None, [hung, hung, hung, hung, "pass"]),
            (value("2.36"), None, ["wrong: 2.36", "wrong: 2.36", "pass", "pass", "pass"]),
            (value("3"), None, ["wrong: 3", "wrong: 3", "pass", "wrong: 3", "pass"]),
            (samples(), None, ["pass", "pass", "pass", "wrong: samples, and no value", "pass"]),
            (Saw::NotAsked { why: "no".into() }, None, ["skip"; 5]),
        ];
        let contracts = [Contract::Works, Contract::Fallback, Contract::Reach, Contract::Value, Contract::Record];
        for (saw, filter, expected) in table {
            for (contract, expected) in contracts.into_iter().zip(expected) {
                assert_eq!(word(contract, saw.clone(), filter), expected, "{contract:?} of {saw:?}, filter {filter:?}");
            }
        }
    }

    /// Every kind of observation × every answer of a filter × every contract, by rules said once more and the other way round:
    /// what was seen decides first, then who said it. No wildcard: what is new does not compile until it has been thought about.
    #[test]
    fn every_contract_of_everything_seen_under_every_filter() {
        #[derive(Clone, Copy, PartialEq)]
        enum By {
            Kernel,
            Filter,
            Nobody,
        }
        let filters = [
            (None, By::Nobody),
            (Some("unknown"), By::Nobody),
            (Some("allow"), By::Kernel),
            (Some("log"), By::Kernel),
            (Some("errno 1"), By::Filter),
            (Some("errno 38"), By::Filter),
            (Some("kill"), By::Filter),
            (Some("trap"), By::Filter),
        ];
        let value = |text: &str| Saw::Value { value: Value::Text(text.into()) };
        let all = [
            Saw::Ok,
            Saw::Errno { errno: ENOSYS },
            Saw::Errno { errno: EPERM },
            // The check allows EOPNOTSUPP; EFAULT is what senseless arguments are answered with.
            Saw::Errno { errno: 95 },
            Saw::Errno { errno: 14 },
            Saw::Signal { signal: 31 },
            Saw::Timeout { ms: 300 },
            value("2.36"),
            value("3"),
            Saw::Samples { unit: "ns".into(), samples: vec![1.0] },
            Saw::NotAsked { why: "no".into() },
        ];
        let contracts = [Contract::Works, Contract::Fallback, Contract::Reach, Contract::Value, Contract::Record];
        let mut combinations = 0;
        for saw in &all {
            for (filter, by) in filters {
                for contract in contracts {
                    let broken = match (saw, contract) {
                        (
                            Saw::NotAsked { .. },
                            Contract::Works | Contract::Fallback | Contract::Reach | Contract::Value | Contract::Record,
                        ) => "skip",
                        (
                            Saw::Ok
                            | Saw::Errno { .. }
                            | Saw::Signal { .. }
                            | Saw::Timeout { .. }
                            | Saw::Value { .. }
                            | Saw::Samples { .. },
                            Contract::Record,
                        ) => "pass",
                        (
                            Saw::Signal { .. },
                            Contract::Works | Contract::Fallback | Contract::Reach | Contract::Value,
                        ) => "killed",
                        (
                            Saw::Timeout { .. },
                            Contract::Works | Contract::Fallback | Contract::Reach | Contract::Value,
                        ) => "hung",
                        (Saw::Ok | Saw::Samples { .. }, Contract::Works | Contract::Fallback | Contract::Reach) => {
                            "pass"
                        }
                        (Saw::Ok | Saw::Samples { .. }, Contract::Value) => "wrong",
                        (Saw::Value { .. }, Contract::Works | Contract::Fallback) => "wrong",
                        (Saw::Value { .. }, Contract::Reach) => "pass",
                        (Saw::Value { value }, Contract::Value) => match value.to_string().starts_with("2.") {
                            true => "pass",
                            false => "wrong",
                        },
                        (Saw::Errno { errno }, Contract::Works | Contract::Value) => match *errno {
                            95 => "pass",
                            ENOSYS => "absent",
                            1.. | ..=0 => "refused",
                        },
                        (Saw::Errno { errno }, Contract::Fallback) => match *errno {
                            95 | ENOSYS => "pass",
                            1.. | ..=0 => "refused",
                        },
                        (Saw::Errno { errno }, Contract::Reach) => match (*errno, by) {
                            (95 | ENOSYS, By::Kernel | By::Filter | By::Nobody) => "pass",
                            (EPERM, By::Filter | By::Nobody) => "refused",
                            (EPERM, By::Kernel) => "pass",
                            (1.. | ..=0, By::Filter) => "refused",
                            (1.. | ..=0, By::Kernel | By::Nobody) => "pass",
                        },
                    };
                    let told = word(contract, saw.clone(), filter);
                    let told_broken = told.split([' ', ':', ',']).next().unwrap_or_default();
                    assert_eq!(told_broken, broken, "{contract:?} of {saw:?}, filter {filter:?}: {told}");
                    // Who refused is said where the filter was asked, of what somebody can refuse.
                    let refusable = matches!(broken, "refused" | "absent" | "killed");
                    assert_eq!(told.contains("by the seccomp filter"), refusable && by == By::Filter, "{told}");
                    assert_eq!(told.contains("by the kernel"), refusable && by == By::Kernel, "{told}");
                    combinations += 1;
                }
            }
        }
        assert_eq!(combinations, all.len() * filters.len() * contracts.len());
    }

    #[test]
    fn bounds_need_a_number() {
        let bounded = Check { expect: vec![], min: Some(10.0), max: Some(20.0), ..check(Contract::Value) };
        let outcome = |value| judge(&bounded, &seen(Saw::Value { value }, None)).word();
        assert_eq!(outcome(Value::Integer(10)), "pass");
        assert_eq!(outcome(Value::Text("20".into())), "pass");
        assert_eq!(outcome(Value::Number(20.5)), "fail");
        assert_eq!(outcome(Value::Text("many".into())), "fail");
    }
}
