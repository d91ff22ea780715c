//! The data a page carries for its script: one JSON document, columns instead of rows, a vector once however many cells
//! share it. Large ones travel as gzip in base64, which browsers unpack without a library.

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::RenderError;
use super::csv::{ended_words, role_word};
use super::text::printable;
use super::vectors::requirement_word;
use super::view::{Cell, View};
use crate::catalog::Contract;
use crate::engine::Facts;
use crate::fault::Fault;
use crate::store::Known;

/// JSON longer than this is compressed, bytes.
const COMPRESS: usize = 128 << 10;
/// Facts, notes and attempts of cells are carried up to this many cells; for more they stay in the run directory.
const DETAILED_CELLS: usize = 4_000;
/// Longest value of a fact, in characters.
const MAX_FACT: usize = 2_000;

/// What stands in the page, and how it is written.
#[derive(Debug, serde::Serialize)]
pub struct Embedded {
    /// `json` or `gzip` (in base64).
    pub encoding: &'static str,
    /// Free of `<`, so that it cannot end its element.
    pub text: String,
}

/// The data of a page, ready to be put into a script element.
pub fn embed(view: &View<'_>) -> Result<Embedded, RenderError> {
    let json = serde_json::to_vec(&data(view))?;
    if json.len() <= COMPRESS {
        // Inside strings only: JSON has no other place for these characters.
        let text =
            String::from_utf8_lossy(&json).replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
        return Ok(Embedded { encoding: "json", text });
    }
    let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::new(6));
    gzip.write_all(&json)?;
    Ok(Embedded { encoding: "gzip", text: STANDARD.encode(gzip.finish()?) })
}

/// The same as a JSON value, for tests and for [`super::json()`].
pub fn data(view: &View<'_>) -> Value {
    let detailed = view.cells.len() <= DETAILED_CELLS;
    json!({
        "format": 1,
        "run": view.run.info.id,
        "detailed": detailed,
        "checks": view.checks.iter().map(|check| {
            let row = view.catalogue.row(check);
            json!([
                check,
                requirement_word(view.requirement(check)),
                row.map_or("", |row| &row.title),
                row.map_or("", |row| &row.breaks),
                row.and_then(|row| row.remedy.as_deref()).unwrap_or(""),
                row.map_or("", |row| &row.reference),
                row.map_or("works", |row| contract_word(row.contract)),
                row.and_then(|row| row.since.as_deref()).unwrap_or(""),
                row.and_then(|row| row.native.as_deref()).unwrap_or(""),
            ])
        }).collect::<Vec<_>>(),
        "seen": view.seen.iter().map(|seen| {
            json!([
                seen.outcome, seen.reason, seen.saw, seen.number, seen.value,
                seen.step.as_deref().unwrap_or(""), seen.filter.as_deref().unwrap_or(""),
            ])
        }).collect::<Vec<_>>(),
        "hosts": view.hosts.iter().map(|id| subject(id.as_str(), view.host(id))).collect::<Vec<_>>(),
        "engines": view.engines,
        "engine_facts": engine_facts(view),
        "images": view.images.iter().map(|id| subject(id.as_str(), view.image(id))).collect::<Vec<_>>(),
        "scratch": view.scratch,
        "vectors": vectors(view),
        "cells": {
            "host": column(view, |cell| cell.host),
            "engine": column(view, |cell| cell.engine),
            "image": column(view, |cell| cell.image),
            "role": view.cells.iter().map(role_word).collect::<Vec<_>>(),
            "verdict": view.cells.iter().map(|cell| cell.verdict).collect::<Vec<_>>(),
            "vector": view.cells.iter().map(|cell| cell.vector.map_or(-1, |v| i64::try_from(v).unwrap_or(-1))).collect::<Vec<_>>(),
        },
        "extra": view.cells.iter().enumerate().filter_map(|(at, cell)| extra(at, cell, detailed)).collect::<Map<_, _>>(),
        "findings": view.findings.iter().map(|finding| {
            json!({
                "id": finding.id, "title": printable(&finding.title, 300), "checks": finding.checks,
                "layer": finding.layer, "condition": finding.condition,
            })
        }).collect::<Vec<_>>(),
    })
}

fn column(view: &View<'_>, pick: fn(&Cell<'_>) -> usize) -> Vec<usize> {
    view.cells.iter().map(pick).collect()
}

fn contract_word(contract: Contract) -> &'static str {
    match contract {
        Contract::Works => "works",
        Contract::Fallback => "fallback",
        Contract::Reach => "reach",
        Contract::Value => "value",
        Contract::Record => "record",
    }
}

fn facts(facts: &Facts) -> Value {
    facts.iter().map(|(name, value)| (printable(name, 200), Value::from(printable(value, MAX_FACT)))).collect()
}

fn fault(fault: &Fault) -> Value {
    json!([
        fault.phase.to_string(),
        printable(&fault.cause, 700),
        fault.hint.as_deref().map(|hint| printable(hint, 700))
    ])
}

fn subject(id: &str, known: Option<&Known>) -> Value {
    json!({
        "id": id,
        "facts": known.map_or(Value::Object(Map::new()), |known| facts(&known.facts)),
        "fault": known.and_then(|known| known.fault.as_ref()).map(fault),
    })
}

/// Host and engine, as indexes, with what is known. Engines of a thousand hosts are mostly equal, which gzip likes.
fn engine_facts(view: &View<'_>) -> Value {
    let mut all = vec![];
    for (at, host) in view.hosts.iter().enumerate() {
        for (index, engine) in view.engines.iter().enumerate() {
            if let Some(known) = view.engine(host, engine) {
                all.push(json!([at, index, facts(&known.facts), known.fault.as_ref().map(fault)]));
            }
        }
    }
    Value::Array(all)
}

/// The most frequent answer per check, and for each vector what differs: gap to the previous check, answer or -1, …
fn vectors(view: &View<'_>) -> Value {
    let width = view.checks.len();
    let mut votes: Vec<std::collections::HashMap<i64, usize>> = vec![Default::default(); width];
    let mut dense = vec![-1i64; width];
    let fill = |dense: &mut Vec<i64>, results: &[(u32, u32)]| {
        dense.fill(-1);
        for &(check, seen) in results {
            dense[check as usize] = i64::from(seen);
        }
    };
    for vector in &view.vectors {
        fill(&mut dense, &vector.results);
        for (votes, seen) in votes.iter_mut().zip(&dense) {
            *votes.entry(*seen).or_default() += 1;
        }
    }
    let base: Vec<i64> = votes
        .into_iter()
        .map(|votes| votes.into_iter().max_by_key(|(seen, votes)| (*votes, *seen)).map_or(-1, |(seen, _)| seen))
        .collect();
    let differences: Vec<Vec<i64>> = view
        .vectors
        .iter()
        .map(|vector| {
            fill(&mut dense, &vector.results);
            let (mut out, mut last) = (vec![], 0);
            for (check, (seen, usual)) in (0i64..).zip(dense.iter().zip(&base)) {
                if seen != usual {
                    out.extend([check - last, *seen]);
                    last = check;
                }
            }
            out
        })
        .collect();
    json!({ "base": base, "differences": differences })
}

/// What only this cell has. Reasons are always carried; the bulky rest only where it fits.
fn extra(at: usize, cell: &Cell<'_>, detailed: bool) -> Option<(String, Value)> {
    let mut all = Map::new();
    if let Some(reason) = cell.skipped {
        all.insert("skipped".into(), printable(reason, 700).into());
    }
    if !cell.faults.is_empty() {
        all.insert("faults".into(), cell.faults.iter().map(fault).collect());
    }
    if detailed {
        if let Some(known) = cell.facts.filter(|known| !known.is_empty()) {
            all.insert("facts".into(), facts(known));
        }
        let attempts: Vec<Value> = cell
            .attempts
            .iter()
            .map(|attempt| {
                json!({
                    "attempt": attempt.attempt,
                    "ended": attempt.ended.map(ended_words),
                    "fault": attempt.fault.as_ref().map(fault),
                    "ms": [attempt.timing.create_ms, attempt.timing.run_ms, attempt.timing.remove_ms],
                    "notes": attempt.notes.iter().take(20).map(|note| printable(note, 700)).collect::<Vec<_>>(),
                    "evidence": printable(&attempt.evidence, 300),
                })
            })
            .collect();
        if !attempts.is_empty() {
            all.insert("attempts".into(), attempts.into());
        }
    }
    (!all.is_empty()).then(|| (at.to_string(), Value::Object(all)))
}
