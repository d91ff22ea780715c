//! A run as one JSON document for other programs (`report --format json`). The text version of the run is hostile; whoever
//! shows it has to escape it.

use serde_json::{Value, json};

use super::csv::role_word;
use super::view::View;
use super::{RenderError, vectors::requirement_word};

/// Renders the document, with a newline at its end.
pub fn json(view: &View<'_>) -> Result<Vec<u8>, RenderError> {
    let mut bytes = serde_json::to_vec(&document(view))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Identity and verdict of every cell; results once per distinct vector, under the digest that the cells name.
pub fn document(view: &View<'_>) -> Value {
    let info = &view.run.info;
    let axes = |axes: &[super::Axis]| -> Value {
        axes.iter().map(|axis| json!({ "name": axis.name, "failing": axis.failing, "of": axis.of })).collect()
    };
    let mut digests: Vec<Option<(&str, usize)>> = vec![None; view.vectors.len()];
    for cell in &view.cells {
        if let (Some(vector), Some(digest)) = (cell.vector, cell.digest) {
            digests[vector].get_or_insert((digest, 0)).1 += 1;
        }
    }
    json!({
        "format": 1,
        "run": info.id,
        "name": info.name,
        "abicus": info.abicus,
        "probes": info.payload,
        "started": info.started,
        "finished": info.finished,
        "interrupted": info.interrupted,
        "rendered": view.rendered_at,
        "verdicts": view.verdicts().into_iter().map(|(verdict, cells)| (verdict.word().to_owned(), Value::from(cells)))
            .collect::<serde_json::Map<_, _>>(),
        "notes": view.notes,
        "profile": {
            "name": view.terms.profile.name,
            "changes": view.changes.iter().map(|change| json!({
                "check": change.check,
                "from": requirement_word(change.from),
                "to": requirement_word(change.to),
                "reason": change.reason,
            })).collect::<Vec<_>>(),
        },
        "waivers": view.waivers,
        "findings": view.findings.iter().map(|finding| json!({
            "id": finding.id,
            "kind": finding.kind.word(),
            "title": finding.title,
            "layer": finding.layer,
            "unanswered": finding.unanswered,
            "condition": finding.condition,
            "mechanism": finding.mechanism,
            "mechanisms": finding.mechanisms,
            "known": finding.known,
            "unexplained": finding.unexplained,
            "exceptions": finding.exceptions,
            "waived": finding.waived,
            "ties": finding.ties,
            "thresholds": finding.thresholds,
            "requirement": requirement_word(finding.requirement),
            "checks": finding.checks.iter().map(|&check| &view.checks[check]).collect::<Vec<_>>(),
            "cells": finding.cells,
            "seen": finding.seen.iter().map(|(seen, cells)| json!({ "seen": seen, "cells": cells })).collect::<Vec<_>>(),
            "hosts": axes(&finding.hosts),
            "engines": axes(&finding.engines),
            "images": axes(&finding.images),
            "controls": axes(&finding.controls),
        })).collect::<Vec<_>>(),
        "outages": super::outage::not_run(view).iter().filter(|not_run| not_run.is_outage()).map(|outage| json!({
            "id": outage.id(),
            "verdict": outage.verdict,
            "reason": outage.reason,
            "hint": outage.hint,
            "known": outage.known(),
            "cells": outage.cells.iter().map(|cell| cell.id).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "cells": view.cells.iter().map(|cell| json!({
            "cell": cell.id,
            "role": role_word(cell),
            "verdict": cell.verdict,
            "waived": cell.counts.waived,
            "vector": cell.digest,
            "skipped": cell.skipped,
            "faults": cell.faults,
        })).collect::<Vec<_>>(),
        "vectors": view.vectors.iter().zip(digests).filter_map(|(vector, digest)| {
            let (digest, cells) = digest?;
            Some(json!({
                "vector": digest,
                "cells": cells,
                "verdict": vector.verdict,
                "counts": vector.counts,
                "not_passed": vector.results.iter().filter_map(|&(check, seen)| {
                    let seen = &view.seen[seen as usize];
                    (seen.outcome != "pass").then(|| json!({
                        "check": view.checks[check as usize],
                        "outcome": seen.outcome,
                        "reason": seen.reason,
                        "saw": seen.saw,
                        "number": seen.number,
                        "value": seen.value,
                        "step": seen.step,
                        "filter": seen.filter,
                    }))
                }).collect::<Vec<_>>(),
            }))
        }).collect::<Vec<_>>(),
    })
}
