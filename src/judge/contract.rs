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
