//! Words as tables of the judge see them → the observation they are the words of.

use abicus::collect::{Observation, Saw, Value};
use abicus::judge::scene::words;
use abicus::judge::{errno_number, signal_name};

/// `errno EPERM by filter`, `value 64`, `ok`.
pub fn observation(text: &str) -> Observation {
    let (rest, filter) = match (text.strip_suffix(" by filter"), text.strip_suffix(" by kernel")) {
        (Some(rest), _) => (rest, Some("errno 1".to_owned())),
        (_, Some(rest)) => (rest, Some("allow".to_owned())),
        _ => (text, None),
    };
    let saw = match rest.split_once(' ') {
        Some(("errno", name)) => Saw::Errno { errno: errno_number(name).unwrap() },
        Some(("signal", name)) => Saw::Signal { signal: (1..32).find(|n| signal_name(*n) == name).unwrap() },
        Some(("value", value)) => Saw::Value { value: Value::Text(value.to_owned()) },
        _ if rest == "ok" => Saw::Ok,
        _ if rest == "not asked" => Saw::NotAsked { why: "not in the image".to_owned() },
        _ => panic!("`{text}` is not what a cell can show"),
    };
    let observation = Observation { saw, step: None, filter };
    assert_eq!(words(&observation), text);
    observation
}
