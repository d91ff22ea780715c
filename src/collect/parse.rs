//! The line protocol, version 1 (`probes/README.md`).

use serde::Deserialize;

use super::{Observation, ProbeReport, Report, Saw, Value};
use crate::fault::{Fault, Phase};
use crate::id::{CheckId, ProbeId};

/// Longest line accepted, bytes; the protocol's own limit.
const MAX_LINE: usize = 4096;
/// Most observations accepted from one cell.
const MAX_CHECKS: usize = 20_000;
/// Most facts accepted from one cell.
const MAX_FACTS: usize = 5_000;
/// Faults kept of one cell's output; the rest is counted.
const MAX_FAULTS: usize = 8;

#[derive(Deserialize)]
struct Header {
    abicus: u32,
    probe: ProbeId,
    version: String,
    planned: usize,
}

#[derive(Deserialize)]
struct Fact {
    fact: String,
    value: Value,
}

#[derive(Deserialize)]
struct Check {
    check: CheckId,
    #[serde(flatten)]
    observation: Observation,
}

#[derive(Deserialize)]
struct End {
    end: ProbeId,
    reported: usize,
}

#[derive(Deserialize)]
struct Exit {
    exit: u32,
    status: Option<i32>,
    signal: Option<i32>,
    timeout: Option<u64>,
    errno: Option<i32>,
}

/// Reads what the probes of one cell wrote. Bad lines become faults; good lines count whatever surrounds them.
pub fn parse(stdout: &[u8]) -> Report {
    let mut reader = Reader::default();
    let mut lines = stdout.split(|&byte| byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let last = lines.peek().is_none();
        if line.is_empty() {
            continue;
        }
        if last {
            // Every line ends with a newline, so what follows the last one was cut off.
            reader.cut_off("the output ends in the middle of a line");
        } else {
            reader.line(line);
        }
    }
    reader.finish()
}

/// Which of a cell's programs the libc probe is, after the kernel probe's own checks and the surroundings probe.
const LIBC: u32 = 2;

#[derive(Default)]
struct Reader {
    report: Report,
    more_faults: usize,
    counted: usize,
    /// A probe began since the last exit line.
    spoke: bool,
}

impl Reader {
    fn fault(&mut self, cause: impl std::fmt::Display) {
        self.add(Fault::new(Phase::Protocol, cause));
    }

    /// Something is missing at the end; who ended the program early is not to be seen in its output.
    fn cut_off(&mut self, cause: impl std::fmt::Display) {
        const HINT: &str =
            "what arrived counts; run the cell again, and if it ends there again, its evidence shows after what";
        self.add(Fault::new(Phase::Protocol, cause).hint(HINT));
    }

    fn add(&mut self, fault: Fault) {
        if self.report.faults.len() < MAX_FAULTS {
            self.report.faults.push(fault);
        } else {
            self.more_faults += 1;
        }
    }

    fn line(&mut self, line: &[u8]) {
        if line.len() > MAX_LINE {
            return self.fault(format_args!("a line of {} bytes, more than {MAX_LINE}", line.len()));
        }
        let Ok(text) = std::str::from_utf8(line) else {
            return self.fault("a line that is not UTF-8");
        };
        let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else {
            return self.fault(format_args!("a line that is not JSON: {}", excerpt(text)));
        };
        let known = |key: &str| value.get(key).is_some();
        let result = if known("check") {
            serde_json::from_value(value).map(|check| self.check(check))
        } else if known("fact") {
            serde_json::from_value(value).map(|fact| self.fact(fact))
        } else if known("abicus") {
            serde_json::from_value(value).map(|header| self.header(header))
        } else if known("end") {
            serde_json::from_value(value).map(|end| self.end(end))
        } else if known("exit") {
            serde_json::from_value(value).map(|exit| self.exit(exit))
        } else {
            return self.fault(format_args!("a line of an unknown kind: {}", excerpt(text)));
        };
        if let Err(error) = result {
            self.fault(format_args!("a line with wrong keys ({error}): {}", excerpt(text)));
        }
    }

    fn header(&mut self, header: Header) {
        if header.abicus != 1 {
            return self.fault(format_args!("protocol version {}, this abicus reads version 1", header.abicus));
        }
        self.close();
        self.spoke = true;
        self.report.probes.push(ProbeReport {
            probe: header.probe,
            version: header.version,
            planned: header.planned,
            reported: 0,
            complete: false,
        });
    }

    fn check(&mut self, check: Check) {
        if self.report.probes.is_empty() {
            return self.fault("an observation before the first header");
        }
        if self.report.observations.len() >= MAX_CHECKS {
            return self.fault(format_args!("more than {MAX_CHECKS} observations"));
        }
        if let Saw::Samples { samples, .. } = &check.observation.saw
            && samples.iter().any(|sample| !sample.is_finite())
        {
            return self.fault(format_args!("check `{}` has a sample that is not a number", check.check));
        }
        self.counted += 1;
        if self.report.observations.insert(check.check.clone(), check.observation).is_some() {
            self.fault(format_args!("check `{}` was reported twice", check.check));
        }
    }

    fn fact(&mut self, fact: Fact) {
        if self.report.facts.len() >= MAX_FACTS {
            return self.fault(format_args!("more than {MAX_FACTS} facts"));
        }
        self.report.facts.insert(fact.fact, fact.value.to_string());
    }

    fn end(&mut self, end: End) {
        let counted = self.counted;
        let Some(probe) = self.report.probes.last_mut() else {
            return self.fault("an end line before the first header");
        };
        if probe.probe != end.end {
            let cause = format!("an end line of `{}` in the output of `{}`", end.end, probe.probe);
            return self.fault(cause);
        }
        probe.complete = end.reported == counted;
        if !probe.complete {
            let cause = format!("probe `{}` says it reported {}, {counted} arrived", end.end, end.reported);
            self.fault(cause);
        }
    }

    fn exit(&mut self, exit: Exit) {
        if !std::mem::take(&mut self.spoke) && exit.exit == LIBC && self.never_spoke(&exit) {
            return;
        }
        let who = match exit.exit {
            0 => "the kernel probe".to_owned(),
            n => format!("program {n} of the cell"),
        };
        match exit {
            Exit { status: Some(0), .. } => {}
            Exit { status: Some(status), .. } => self.fault(format_args!("{who} exited with status {status}")),
            Exit { signal: Some(signal), .. } => self.fault(format_args!("{who} was killed by signal {signal}")),
            Exit { timeout: Some(ms), .. } => self.fault(format_args!("{who} was killed after {ms} ms")),
            Exit { errno: Some(errno), .. } => self.fault(format_args!("{who} could not be executed: errno {errno}")),
            _ => self.fault(format_args!("{who} ended in an unknown way")),
        }
    }

    /// The image's own loader with the libc probe ended before it said a word: that is what `libc.start` asks, seen in the
    /// image, and no fault of the rig.
    fn never_spoke(&mut self, exit: &Exit) -> bool {
        let saw = match *exit {
            Exit { errno: Some(errno), .. } => Saw::Errno { errno },
            Exit { signal: Some(signal), .. } => Saw::Signal { signal },
            Exit { timeout: Some(ms), .. } => Saw::Timeout { ms },
            Exit { status: Some(status), .. } => Saw::Value { value: Value::Text(format!("status {status}")) },
            _ => return false,
        };
        let Ok(start) = "libc.start".parse() else { return false };
        self.report.observations.insert(start, Observation { saw, step: None, filter: None });
        true
    }

    fn close(&mut self) {
        if let Some(probe) = self.report.probes.last_mut() {
            probe.reported = self.counted;
        }
        self.counted = 0;
    }

    fn finish(mut self) -> Report {
        self.close();
        let cut: Vec<String> = self
            .report
            .probes
            .iter()
            .filter(|probe| !probe.complete)
            .map(|p| format!("probe `{}` was cut off: {} of {} checks arrived", p.probe, p.reported, p.planned))
            .collect();
        for cause in cut {
            self.cut_off(cause);
        }
        if self.more_faults > 0 {
            self.report.faults.push(Fault::new(Phase::Protocol, format!("and {} more faults", self.more_faults)));
        }
        self.report
    }
}

/// The start of a hostile line, escaped.
fn excerpt(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = concat!(
        r#"{"abicus":1,"probe":"kernel","version":"0.1.0","arch":"x86_64","planned":2}"#,
        "\n",
        r#"{"fact":"kernel.release","value":"6.1"}"#,
        "\n",
        r#"{"check":"syscall.clone3","saw":"errno","errno":38,"filter":"errno 38"}"#,
        "\n",
        r#"{"check":"libc.version","saw":"value","value":"2.36"}"#,
        "\n",
        r#"{"end":"kernel","reported":2}"#,
        "\n",
    );

    #[test]
    fn a_whole_output_is_read_without_faults() {
        let report = parse(GOOD.as_bytes());
        assert_eq!(report.faults, []);
        assert_eq!(report.observations.len(), 2);
        assert!(report.probes[0].complete);
        let clone3 = &report.observations[&"syscall.clone3".parse().unwrap()];
        assert_eq!(clone3.saw, Saw::Errno { errno: 38 });
        assert_eq!(clone3.filter.as_deref(), Some("errno 38"));
    }

    #[test]
    fn every_prefix_keeps_what_arrived_and_says_that_it_was_cut() {
        for cut in 1..GOOD.len() - 1 {
            let report = parse(&GOOD.as_bytes()[..cut]);
            let whole_lines = GOOD[..cut].matches("\"check\"").count();
            assert!(!report.faults.is_empty(), "no fault at {cut}");
            assert!(report.observations.len() + 1 >= whole_lines);
        }
    }

    #[test]
    fn hostile_output_becomes_a_bounded_list_of_faults() {
        let mut bytes = b"\xff\xfe\n<script>alert(1)</script>\n{\"check\":\"../../x\",\"saw\":\"ok\"}\n".to_vec();
        bytes.extend(std::iter::repeat_n(b"garbage\n", 10_000).flatten());
        let report = parse(&bytes);
        assert_eq!(report.faults.len(), MAX_FAULTS + 1);
        assert!(report.observations.is_empty());
    }

    #[test]
    fn a_libc_probe_that_never_spoke_is_what_libc_start_asks() {
        let (start, asked) = ("libc.start".parse().unwrap(), "{\"exit\":0,\"status\":0}\n");
        for (exit, saw) in [
            (r#"{"exit":2,"errno":2}"#, Saw::Errno { errno: 2 }),
            (r#"{"exit":2,"signal":4}"#, Saw::Signal { signal: 4 }),
            (r#"{"exit":2,"timeout":900}"#, Saw::Timeout { ms: 900 }),
            (r#"{"exit":2,"status":127}"#, Saw::Value { value: Value::Text("status 127".into()) }),
        ] {
            let report = parse(format!("{GOOD}{asked}{exit}\n").as_bytes());
            assert_eq!(report.faults, [], "{exit}");
            assert_eq!(report.observations[&start].saw, saw, "{exit}");
            // Once it spoke, how it ended is told of the probe.
            let spoke = GOOD.replace("\"kernel\"", "\"libc\"");
            let report = parse(format!("{GOOD}{asked}{spoke}{exit}\n").replace("libc.version", "libc.kind").as_bytes());
            assert!(!report.observations.contains_key(&start), "{exit}");
            assert!(report.faults.iter().any(|fault| fault.cause.starts_with("program 2")), "{exit}");
            // The surroundings probe comes with abicus: where it is silent, the rig is at fault.
            let silent = exit.replace("\"exit\":2", "\"exit\":1");
            let report = parse(format!("{GOOD}{asked}{silent}\n").as_bytes());
            assert!(!report.observations.contains_key(&start) && report.faults.len() == 1, "{exit}");
        }
    }

    #[test]
    fn a_check_reported_twice_is_a_fault() {
        let text = GOOD.replace("libc.version", "syscall.clone3");
        assert!(parse(text.as_bytes()).faults.iter().any(|fault| fault.cause.contains("twice")));
    }
}
