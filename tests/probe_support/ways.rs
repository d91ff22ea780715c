//! Whether each check was seen to answer both ways, and whether what the catalogue says of those that were not is still true.
#![allow(dead_code)] // each test file uses its own part

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use abicus::catalog::{Check, Contract};
use abicus::collect::{Saw, parse};
use abicus::judge::judge;

use crate::probe_support::Seen;

/// What one check answered in one situation.
#[derive(Debug)]
struct Answer {
    situation: String,
    /// The word of its outcome.
    outcome: &'static str,
    saw: Saw,
}

/// What each check answered where.
#[derive(Default)]
pub struct Ways {
    answers: BTreeMap<String, Vec<Answer>>,
}

impl Ways {
    /// What was seen in one situation, by rows of these.
    pub fn add<'a>(&mut self, situation: &str, seen: &Seen, rows: impl Iterator<Item = &'a Check>) {
        // Without what a console says in between.
        let lines: String = seen.lines.iter().map(|line| format!("{line}\n")).collect();
        let report = parse(lines.as_bytes());
        for row in rows {
            if let Some(observation) = report.observations.get(&row.id) {
                let outcome = judge(row, observation).word();
                let saw = observation.saw.clone();
                let answer = Answer { situation: situation.to_owned(), outcome, saw };
                self.answers.entry(row.id.to_string()).or_default().push(answer);
            }
        }
    }

    fn of(&self, row: &Check) -> &[Answer] {
        self.answers.get(row.id.as_str()).map_or(&[], Vec::as_slice)
    }

    /// The rows of these that failed in this situation, and what they saw.
    pub fn failed<'a>(&self, situation: &str, rows: impl Iterator<Item = &'a Check>) -> Vec<String> {
        let failed = |answer: &&Answer| answer.situation == situation && answer.outcome == "fail";
        rows.filter_map(|row| {
            let answer = self.of(row).iter().find(failed)?;
            Some(format!("{}: {}", row.id, answer.saw))
        })
        .collect()
    }

    /// Where a row was seen in each of two ways: what it asks about was there and passed; and it failed, or, where nothing fails a
    /// row, it said something else.
    fn both(&self, row: &Check) -> [Option<&Answer>; 2] {
        let asked = || self.of(row).iter().filter(|answer| answer.outcome != "skip");
        let good = asked().find(|answer| answer.outcome == "pass" && there(row, &answer.saw));
        let bad = asked().find(|answer| match row.contract {
            Contract::Record => good.is_some_and(|good| good.saw != answer.saw),
            _ => answer.outcome == "fail",
        });
        [good, bad]
    }

    /// Rows seen one way only for which the catalogue has no reason, and rows seen both ways although it has one. Leaves a table of
    /// what was seen where, by the name of the test, in cargo's directory for such things.
    pub fn wrong<'a>(&self, test: &str, rows: impl Iterator<Item = &'a Check>) -> Vec<String> {
        let (mut wrong, mut table) = (Vec::new(), String::new());
        for row in rows {
            let [good, bad] = self.both(row);
            let shown = |answer: Option<&Answer>| {
                answer.map_or("-".to_owned(), |answer| format!("{} ({})", answer.saw, answer.situation))
            };
            table += &format!("{}\t{:?}\t{}\t{}\n", row.id, row.contract, shown(good), shown(bad));
            match (good, bad, &row.one_sided) {
                (Some(_), Some(_), None) | (None, _, Some(_)) | (_, None, Some(_)) => {}
                // Of what only some machines have.
                (Some(_), Some(_), Some(why)) if why.contains("both answers") => {}
                (Some(_), Some(_), Some(why)) => {
                    wrong.push(format!("{}: {} and {}, but one_sided: {why}", row.id, shown(good), shown(bad)));
                }
                (_, _, None) => {
                    let said: BTreeSet<_> = self.of(row).iter().map(|answer| answer.saw.to_string()).collect();
                    wrong.push(format!(
                        "{}: good {}, bad {}, nothing says why: {said:?}",
                        row.id,
                        shown(good),
                        shown(bad)
                    ));
                }
            }
        }
        std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ways-{test}.txt")), table).unwrap();
        wrong
    }
}

/// What a check asks about was there: an absence that passes, and two reasons why something cannot be had, do not show that it works.
fn there(row: &Check, saw: &Saw) -> bool {
    let absent = ["not registered", "no character device", "no driver loaded", "dropped", "the processor has no AMX"];
    match saw {
        // What is right to be absent.
        Saw::Errno { errno: 38 } if row.id.as_str().starts_with("syscall.unassigned.") => true,
        // Senseless arguments are refused by a call that is there.
        Saw::Errno { errno } => row.contract == Contract::Reach && *errno != 38,
        Saw::Signal { .. } | Saw::Timeout { .. } => false,
        saw => !absent.contains(&saw.to_string().as_str()),
    }
}
