//! Failing results → a short list of what is behind them. Checks of one group that fail in exactly the same cells, all or
//! none of them by the seccomp filter, are one finding: the weakest grouping that needs no experiment. Judgement may
//! replace the list by findings with a layer and a condition.

use std::collections::HashMap;

use rayon::prelude::*;

use super::text::{names, printable};
use super::view::View;
use crate::catalog::Requirement;
use crate::judge::blame::Layer;
use crate::judge::cause::{Cause, Causes, Subject};
use crate::plan::Role;
use crate::store::Known;

/// How a finding spreads over one value of an axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    /// Host, engine or image, or the kind of a control.
    pub name: String,
    /// Cells of it that fail.
    pub failing: usize,
    /// Cells of it that answered.
    pub of: usize,
}

/// Failures with one explanation.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The same in every run that has the same checks failing together.
    pub id: String,
    /// In one line.
    pub title: String,
    /// Who has to fix it, where an experiment has shown it.
    pub layer: Option<String>,
    /// When it happens (`engine.version<20.10.10`), where a rule was learned.
    pub condition: Option<String>,
    /// Other conditions that say the same of these cells.
    pub ties: Vec<String>,
    /// The values seen on both sides of a threshold of the condition.
    pub thresholds: Vec<String>,
    /// The strongest of its checks.
    pub requirement: Requirement,
    /// Indexes into [`View::checks`], the strongest first.
    pub checks: Vec<usize>,
    /// How many asked cells fail.
    pub cells: usize,
    /// What was seen, with the number of asked cells, the most frequent first.
    pub seen: Vec<(String, usize)>,
    /// Spread over hosts.
    pub hosts: Vec<Axis>,
    /// Spread over engines.
    pub engines: Vec<Axis>,
    /// Spread over images.
    pub images: Vec<Axis>,
    /// Which axes decide, where the failing cells are exactly the product of their values: hosts, engines, images.
    pub exact: Option<[bool; 3]>,
    /// What native cells and controls answer to the first check.
    pub controls: Vec<Axis>,
}

/// Groups failing checks by the cells they fail in.
pub fn group(view: &View<'_>) -> Vec<Finding> {
    // Cells with one vector fail alike, so sets of vectors stand for sets of cells.
    let mut asked = vec![false; view.vectors.len()];
    for vector in view.asked().filter_map(|cell| cell.vector) {
        asked[vector] = true;
    }
    let mut failing: Vec<Vec<u32>> = vec![vec![]; view.checks.len()];
    for ((vector, asked), index) in view.vectors.iter().zip(asked).zip(0..) {
        for &(check, seen) in vector.results.iter().filter(|_| asked) {
            if view.seen[seen as usize].is_fail() {
                failing[check as usize].push(index);
            }
        }
    }
    // What one engine does differently fails in the same cells for many reasons; group and refuser tell them apart.
    let mut groups: HashMap<(Vec<u32>, &str, bool), Vec<usize>> = HashMap::new();
    for (check, vectors) in failing.into_iter().enumerate() {
        let Some(seen) = vectors.first().and_then(|&vector| answer(view, vector as usize, check)) else { continue };
        let filtered = seen.reason.contains("seccomp filter");
        groups.entry((vectors, view.checks[check].group(), filtered)).or_default().push(check);
    }
    let causes = causes(view);
    let mut findings: Vec<Finding> = groups.into_par_iter().map(|(_, checks)| finding(view, &causes, checks)).collect();
    findings.sort_by(|a, b| {
        let key = |finding: &Finding| (finding.requirement, finding.cells, finding.checks.len());
        key(b).cmp(&key(a)).then_with(|| a.id.cmp(&b.id))
    });
    findings
}

/// What a vector answers to a check.
fn answer<'v>(view: &'v View<'_>, vector: usize, check: usize) -> Option<&'v super::Seen> {
    let results = &view.vectors.get(vector)?.results;
    let at = results.binary_search_by_key(&check, |&(check, _)| check as usize).ok()?;
    view.seen.get(results[at].1 as usize)
}

/// The cells of a view, ready to be asked who has to fix a failure.
fn causes<'v>(view: &'v View<'_>) -> Causes<'v> {
    let facts = |known: Option<&'v Known>| known.map(|known| &known.facts);
    let subjects = view.cells.iter().map(|cell| Subject {
        cell: cell.id,
        role: cell.role,
        host: facts(view.host(&cell.id.host)),
        engine: facts(view.engine(&cell.id.host, &cell.id.engine)),
        image: facts(view.image(&cell.id.image)),
    });
    Causes::new(subjects.collect(), view.run.info.controls.as_ref())
}

/// `engine × image`, or what is left when a control did not run.
fn layer(cause: &Cause) -> Option<String> {
    let words: Vec<&str> = cause.layers.iter().map(|layer| layer.words()).collect();
    let (last, rest) = words.split_last()?;
    if rest.is_empty() {
        return Some((*last).to_owned());
    }
    if cause.layers.contains(&Layer::Host) && cause.layers.contains(&Layer::EngineImage) {
        return Some("not known, because no control cell answered".to_owned());
    }
    let missing = match cause.missing.is_empty() {
        true => String::new(),
        false => format!(" (not asked: control {})", cause.missing.join(", ")),
    };
    Some(format!("{} or {last}{missing}", rest.join(", ")))
}

fn finding(view: &View<'_>, causes: &Causes<'_>, mut checks: Vec<usize>) -> Finding {
    let id = |check: usize| view.checks[check].as_str();
    checks.sort_by_key(|&check| (std::cmp::Reverse(view.requirement(&view.checks[check])), check));
    let first = checks[0];
    let mut spread = [vec![], vec![], vec![]].map(|_: Vec<()>| (vec![], vec![]));
    for (axis, len) in spread.iter_mut().zip([view.hosts.len(), view.engines.len(), view.images.len()]) {
        *axis = (vec![0usize; len], vec![0usize; len]);
    }
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut cells = 0;
    // What one vector answers is looked up once.
    let by_vector: Vec<_> = (0..view.vectors.len()).map(|vector| answer(view, vector, first)).collect();
    for cell in &view.cells {
        let Some(answer) = cell.vector.and_then(|vector| by_vector[vector]) else { continue };
        if answer.outcome == "skip" {
            continue;
        }
        let fails = usize::from(answer.is_fail());
        if cell.role.is_control() {
            continue;
        }
        cells += fails;
        if answer.is_fail() {
            *seen.entry(answer.reason.as_str()).or_default() += 1;
        }
        for ((failing, of), at) in spread.iter_mut().zip([cell.host, cell.engine, cell.image]) {
            failing[at] += fails;
            of[at] += 1;
        }
    }
    let fails: Vec<Option<bool>> = view
        .cells
        .iter()
        .map(|cell| by_vector[cell.vector?].filter(|answer| answer.outcome != "skip").map(super::Seen::is_fail))
        .collect();
    let cause = causes.of(&fails);
    let exact = exact(view, &by_vector, &spread);
    let controls = controls(view, &by_vector, &spread);
    let mut seen: Vec<(String, usize)> = seen.into_iter().map(|(text, cells)| (text.to_owned(), cells)).collect();
    seen.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let what = seen.first().map_or("fails", |(text, _)| text.as_str());
    let mut title = names(checks.iter().take(2).map(|&check| id(check)), 2);
    if checks.len() > 2 {
        title += &format!(" and {} more", checks.len() - 2);
    }
    title += &format!(": {}", printable(what, 120));
    let [hosts, engines, images] = spread;
    let axis = |names: Vec<&str>, (failing, of): (Vec<usize>, Vec<usize>)| -> Vec<Axis> {
        let values = names.into_iter().zip(failing.into_iter().zip(of));
        values
            .filter(|(_, (_, of))| *of > 0)
            .map(|(name, (failing, of))| Axis { name: name.to_owned(), failing, of })
            .collect()
    };
    let mut digest = blake3::Hasher::new();
    let mut sorted: Vec<&str> = checks.iter().map(|&check| id(check)).collect();
    sorted.sort_unstable();
    for check in &sorted {
        digest.update(check.as_bytes()).update(b"\n");
    }
    Finding {
        id: format!("f-{}", &digest.finalize().to_hex()[..8]),
        title,
        layer: layer(&cause),
        condition: cause.condition,
        ties: cause.ties,
        thresholds: cause.thresholds,
        requirement: view.requirement(&view.checks[first]),
        cells,
        seen,
        exact,
        hosts: axis(view.hosts.iter().map(|id| id.as_str()).collect(), hosts),
        engines: axis(view.engines.iter().map(|id| id.as_str()).collect(), engines),
        images: axis(
            view.images.iter().map(|id| if id.is_none() { "no image" } else { id.as_str() }).collect(),
            images,
        ),
        controls,
        checks,
    }
}

/// What cells answer that differ from the failing ones in one layer. Asked cells serve too, where they are such cells.
fn controls(
    view: &View<'_>,
    by_vector: &[Option<&super::Seen>],
    [hosts, engines, images]: &[(Vec<usize>, Vec<usize>); 3],
) -> Vec<Axis> {
    let mut controls = [("native", 0, 0), ("empty image", 0, 0), ("no engine policy", 0, 0)];
    for cell in view.cells.iter().filter(|cell| hosts.0[cell.host] > 0) {
        let Some(answer) = cell.vector.and_then(|vector| by_vector[vector]).filter(|answer| answer.outcome != "skip")
        else {
            continue;
        };
        let kind = match cell.role {
            _ if cell.id.image.is_none() => 0,
            _ if view.scratch[cell.image] && engines.0[cell.engine] > 0 => 1,
            Role::ControlNoPolicy if images.0[cell.image] > 0 => 2,
            Role::Cell | Role::ControlNative | Role::ControlScratch | Role::ControlNoPolicy => continue,
        };
        controls[kind].1 += usize::from(answer.is_fail());
        controls[kind].2 += 1;
    }
    controls
        .into_iter()
        .filter(|(_, _, of)| *of > 0)
        .map(|(name, failing, of)| Axis { name: name.to_owned(), failing, of })
        .collect()
}

/// The fewest axes whose failing values, taken together, hold failing cells only.
fn exact(
    view: &View<'_>,
    by_vector: &[Option<&super::Seen>],
    spread: &[(Vec<usize>, Vec<usize>); 3],
) -> Option<[bool; 3]> {
    // Engines first: where two axes explain the same, the one a user can change is named.
    const CANDIDATES: [[bool; 3]; 8] = [
        [false, false, false],
        [false, true, false],
        [false, false, true],
        [true, false, false],
        [false, true, true],
        [true, true, false],
        [true, false, true],
        [true, true, true],
    ];
    CANDIDATES.into_iter().find(|axes| {
        view.asked().all(|cell| {
            let Some(answer) = cell.vector.and_then(|vector| by_vector[vector]) else { return true };
            let at = [cell.host, cell.engine, cell.image];
            let inside = axes.iter().zip(spread).zip(at).all(|((used, (failing, _)), at)| !used || failing[at] > 0);
            answer.outcome == "skip" || !inside || answer.is_fail()
        })
    })
}
