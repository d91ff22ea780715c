//! Failing results → a short list of what is behind them. Checks of one group that fail in the same groups of like cells, all or
//! none of them by the seccomp filter, with the same answers of control cells and the same kind of thing at fault, are one
//! finding: with the layer that these leave, what inside it is at fault, the smallest rule that names the cells, and the
//! documented incompatibility it is, if it is one.
//!
//! The majority speaks for a group of like cells. What fails only against it is noise: one finding for a host on which nearly
//! everything of a check fails, one for all the rest.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use super::inquiry::Inquiry;
use super::text::{count, names, printable};
use super::view::View;
use crate::catalog::Requirement;
use crate::id::CheckId;
use crate::judge::bits::Bits;
use crate::judge::blame::Layer;
use crate::judge::cause::{Blame, Cause, labels};
use crate::judge::known::Match;
use crate::judge::mechanism::Mechanism;
use crate::plan::Role;

/// Checks of a finding whose mechanism is looked for.
const MAX_MECHANISMS: usize = 12;
/// Share of a host's cells that have to fail for the host to be named.
const ONE_HOST: f64 = 0.8;

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

/// What kind of explanation a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Like cells fail alike.
    Cause,
    /// One host fails where hosts like it pass.
    OneHost,
    /// Single cells fail where cells like them pass: to be tried again.
    Scattered,
}

impl Kind {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cause => "cause",
            Self::OneHost => "one-host",
            Self::Scattered => "scattered",
        }
    }
}

/// Failures with one explanation.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The same in every run that has the same checks failing together.
    pub id: String,
    /// What kind of explanation it is.
    pub kind: Kind,
    /// In one line.
    pub title: String,
    /// Who has to fix it, where an experiment has shown it.
    pub layer: Option<String>,
    /// Where that is more than one: controls that would tell, and why they do not.
    pub unanswered: Vec<String>,
    /// What inside that layer is at fault.
    pub mechanism: Option<Mechanism>,
    /// The same for its other checks, where it differs.
    pub mechanisms: Vec<String>,
    /// Documented incompatibilities with this signature.
    pub known: Vec<Match>,
    /// When it happens (`engine.version<20.10.10`), where a rule was learned.
    pub condition: Option<String>,
    /// Other conditions that say the same of these cells.
    pub ties: Vec<String>,
    /// The values seen on both sides of a threshold of the condition.
    pub thresholds: Vec<String>,
    /// Failing groups of like cells that the condition does not cover.
    pub unexplained: usize,
    /// Passing groups of like cells that it covers.
    pub exceptions: usize,
    /// The strongest of its checks.
    pub requirement: Requirement,
    /// Indexes into [`View::checks`], the strongest first.
    pub checks: Vec<usize>,
    /// How many asked cells fail.
    pub cells: usize,
    /// In how many of them a waiver expects it.
    pub waived: usize,
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

impl Finding {
    /// Whether waivers expect all of it.
    pub fn is_waived(&self) -> bool {
        self.waived == self.cells
    }

    /// What decides the order: what nobody expects first, then requirement, then cells and hosts, then checks.
    fn rank(&self) -> (bool, Requirement, usize, usize) {
        let hosts = self.hosts.iter().filter(|host| host.failing > 0).count();
        (!self.is_waived(), self.requirement, self.cells * hosts.max(1), self.checks.len())
    }
}

/// Where one check fails, by groups of like cells.
struct Column {
    check: usize,
    failing: Bits,
    passing: Bits,
    filtered: bool,
}

/// Checks that fail alike, by their group and whether the filter refuses.
type Clusters = BTreeMap<(String, bool), Vec<usize>>;

/// Groups failing checks by the cells they fail in.
pub fn group(view: &View<'_>) -> Vec<Finding> {
    let inquiry = Inquiry::new(view);
    let (columns, strays): (Vec<Column>, Vec<Column>) =
        columns(view, &inquiry).into_iter().partition(|column| !column.failing.is_empty());
    // What one engine does differently fails in the same cells for many reasons; group and refuser tell them apart.
    let mut alike: HashMap<(Bits, Bits), Clusters> = HashMap::new();
    for column in columns {
        let group = view.checks[column.check].group().to_owned();
        let clusters = alike.entry((column.failing, column.passing)).or_default();
        clusters.entry((group, column.filtered)).or_default().push(column.check);
    }
    let mut findings: Vec<Finding> = alike
        .into_par_iter()
        .flat_map_iter(|((failing, passing), clusters)| {
            let (inquiry, learned) = (&inquiry, inquiry.causes.learn(&failing, &passing));
            let mut findings = vec![];
            for ((group, _), checks) in clusters {
                let condition = inquiry.causes.condition(&learned, &group);
                let split = by_fault(view, inquiry, checks).into_iter();
                findings.extend(split.map(|checks| finding(view, inquiry, Kind::Cause, &condition, checks)));
            }
            findings
        })
        .collect();
    for ((kind, host), checks) in stray(view, strays) {
        let condition = host.map(|host| format!("host={}", view.hosts[host]));
        findings.push(finding(view, &inquiry, kind, &Cause { condition, ..Cause::default() }, checks));
    }
    findings.sort_by(|a, b| b.rank().cmp(&a.rank()).then_with(|| a.id.cmp(&b.id)));
    findings
}

/// What fails in the same cells is not of one cause where one fails natively too, or where a limit is at fault for one and a
/// missing file for another: checks by the layers that controls leave and the word for what is at fault inside them.
fn by_fault(view: &View<'_>, inquiry: &Inquiry<'_, '_>, checks: Vec<usize>) -> Vec<Vec<usize>> {
    if checks.len() == 1 {
        return vec![checks];
    }
    let mut layers: BTreeMap<Vec<Layer>, Vec<usize>> = BTreeMap::new();
    for check in checks {
        layers.entry(inquiry.causes.layers(&inquiry.fails(check))).or_default().push(check);
    }
    // They fail in the same cells: the first one's cell speaks for all.
    let by_mechanism = |(layers, checks): (Vec<Layer>, Vec<usize>)| {
        if checks.len() == 1 {
            return vec![checks];
        }
        let fails = inquiry.fails(checks[0]);
        let speaks = spokesman(view, inquiry, &layers, &fails);
        let mut faults: BTreeMap<Option<String>, Vec<usize>> = BTreeMap::new();
        for check in checks {
            let named =
                speaks.as_ref().and_then(|(cell, blame)| inquiry.mechanism(*cell, &view.checks[check], blame, &fails));
            faults.entry(named.map(|named| named.id)).or_default().push(check);
        }
        faults.into_values().collect()
    };
    layers.into_iter().flat_map(by_mechanism).collect()
}

/// How each check that fails somewhere does in the groups of like cells.
fn columns(view: &View<'_>, inquiry: &Inquiry<'_, '_>) -> Vec<Column> {
    // Cells with one vector answer alike, so a vector with the groups its cells are in stands for them.
    let mut weights: Vec<HashMap<u32, u32>> = vec![HashMap::new(); view.vectors.len()];
    for (cell, group) in inquiry.causes.groups() {
        if let Some(vector) = view.cells[cell].vector {
            *weights[vector].entry(u32::try_from(group).unwrap_or(u32::MAX)).or_default() += 1;
        }
    }
    let mut answers: Vec<Vec<(u32, bool)>> = vec![vec![]; view.checks.len()];
    let mut fails = vec![None; view.checks.len()];
    let asked = || view.vectors.iter().zip(0u32..).filter(|(_, index)| !weights[*index as usize].is_empty());
    for (vector, _) in asked() {
        for &(check, seen) in &vector.results {
            let seen = &view.seen[seen as usize];
            if seen.is_fail() {
                fails[check as usize].get_or_insert(seen.reason.contains("seccomp filter"));
            }
        }
    }
    for (vector, index) in asked() {
        for &(check, seen) in vector.results.iter().filter(|(check, _)| fails[*check as usize].is_some()) {
            if let Some(fails) = view.seen[seen as usize].verdict() {
                answers[check as usize].push((index, fails));
            }
        }
    }
    let groups = inquiry.causes.group_count();
    let weights: Vec<Vec<(u32, u32)>> = weights.into_iter().map(|groups| groups.into_iter().collect()).collect();
    answers
        .into_par_iter()
        .zip(fails)
        .enumerate()
        .filter_map(|(check, (answers, filtered))| {
            let filtered = filtered?;
            let mut counts = vec![(0u32, 0u32); groups];
            for (vector, fails) in answers {
                for &(group, cells) in &weights[vector as usize] {
                    let count = &mut counts[group as usize];
                    *(if fails { &mut count.0 } else { &mut count.1 }) += cells;
                }
            }
            let (failing, passing) = labels(&counts);
            Some(Column { check, failing, passing, filtered })
        })
        .collect()
}

/// What fails only against the majority of like cells: by the one host it fails on, and the rest.
fn stray(view: &View<'_>, columns: Vec<Column>) -> BTreeMap<(Kind, Option<usize>), Vec<usize>> {
    // Few cells fail, so they are looked for, and what else was answered only on a host that has most of them.
    let mut of_vector: Vec<Vec<usize>> = vec![vec![]; view.vectors.len()];
    let mut on_host: Vec<Vec<usize>> = vec![vec![]; view.hosts.len()];
    for cell in view.asked() {
        if let Some(vector) = cell.vector {
            of_vector[vector].push(cell.host);
            on_host[cell.host].push(vector);
        }
    }
    let one_host = |check: usize| {
        let fails = |vector: usize| view.answer(vector, check).and_then(super::Seen::verdict);
        let mut failing: HashMap<usize, usize> = HashMap::new();
        for (_, hosts) in of_vector.iter().enumerate().filter(|&(vector, _)| fails(vector) == Some(true)) {
            for host in hosts {
                *failing.entry(*host).or_default() += 1;
            }
        }
        let all: usize = failing.values().sum();
        let (host, failing) = failing.into_iter().max_by_key(|(_, failing)| *failing)?;
        let of = on_host[host].iter().filter(|vector| fails(**vector).is_some()).count();
        (failing as f64 >= ONE_HOST * of as f64 && failing as f64 >= ONE_HOST * all as f64).then_some(host)
    };
    let buckets: Vec<((Kind, Option<usize>), usize)> = columns
        .into_par_iter()
        .map(|column| match one_host(column.check) {
            Some(host) => ((Kind::OneHost, Some(host)), column.check),
            None => ((Kind::Scattered, None), column.check),
        })
        .collect();
    let mut by_kind: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (bucket, check) in buckets {
        by_kind.entry(bucket).or_default().push(check);
    }
    by_kind
}

/// `engine × image`, or the layers that are left.
fn layer(cause: &Cause) -> Option<String> {
    let words: Vec<&str> = cause.layers.iter().map(|layer| layer.words()).collect();
    let (last, rest) = words.split_last()?;
    if rest.is_empty() {
        return Some((*last).to_owned());
    }
    if cause.layers.contains(&Layer::Host) && cause.layers.contains(&Layer::EngineImage) {
        return Some("not known, because no control cell answered".to_owned());
    }
    Some(format!("{} or {last}", rest.join(", ")))
}

/// The first failing cell whose controls say what those of most say.
fn spokesman(
    view: &View<'_>,
    inquiry: &Inquiry<'_, '_>,
    layers: &[Layer],
    fails: &super::Fails,
) -> Option<(usize, Blame)> {
    const ENOUGH: usize = 64;
    let failing = |at: &usize| fails[*at] == Some(true) && !view.cells[*at].role.is_control();
    let mut asked = (0..view.cells.len()).filter(failing).map(|at| (at, inquiry.blame(at, fails)));
    let first = asked.next()?;
    match first.1.layers == layers {
        true => Some(first),
        false => Some(asked.take(ENOUGH).find(|(_, blame)| blame.layers == layers).unwrap_or(first)),
    }
}

/// What inside the layer is at fault, by one cell.
struct Explained {
    mechanism: Option<Mechanism>,
    mechanisms: Vec<String>,
    known: Vec<Match>,
    unanswered: Vec<String>,
}

fn explain(
    view: &View<'_>,
    inquiry: &Inquiry<'_, '_>,
    cause: &Cause,
    checks: &[usize],
    fails: &super::Fails,
) -> Explained {
    let Some((cell, blame)) = spokesman(view, inquiry, &cause.layers, fails) else {
        return Explained { mechanism: None, mechanisms: vec![], known: vec![], unanswered: vec![] };
    };
    let id = |check: usize| &view.checks[check];
    let find = |check: usize, blame: &Blame| inquiry.mechanism(cell, id(check), blame, fails);
    let mechanism = find(checks[0], &blame);
    let mut mechanisms: Vec<String> = vec![];
    for other in checks.iter().skip(1).take(MAX_MECHANISMS).filter_map(|&check| find(check, &blame)) {
        if mechanism.as_ref().is_none_or(|first| first.what != other.what) && !mechanisms.contains(&other.what) {
            mechanisms.push(other.what);
        }
    }
    let known = inquiry.known(cell, checks.iter().map(|&check| id(check)), &blame);
    let several = cause.layers.len() > 1;
    let unanswered = if several { inquiry.unanswered(cell, checks[0], &blame) } else { vec![] };
    Explained { mechanism, mechanisms, known, unanswered }
}

/// The name of a finding: of its checks, in any order, so that it is the same in every run in which they fail together.
fn name(kind: Kind, checks: impl Iterator<Item = CheckId>) -> String {
    let mut sorted: Vec<CheckId> = checks.collect();
    sorted.sort_unstable();
    let mut digest = blake3::Hasher::new();
    match kind {
        Kind::Cause => {}
        Kind::OneHost | Kind::Scattered => {
            digest.update(kind.word().as_bytes()).update(b"\n");
        }
    }
    for check in &sorted {
        digest.update(check.as_str().as_bytes()).update(b"\n");
    }
    format!("f-{}", &digest.finalize().to_hex()[..8])
}

fn finding(
    view: &View<'_>,
    inquiry: &Inquiry<'_, '_>,
    kind: Kind,
    condition: &Cause,
    mut checks: Vec<usize>,
) -> Finding {
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
    let by_vector: Vec<_> = (0..view.vectors.len()).map(|vector| view.answer(vector, first)).collect();
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
    let fails: super::Fails = view.cells.iter().map(|cell| by_vector[cell.vector?]?.verdict()).collect();
    let cause = match kind {
        Kind::Cause => inquiry.causes.blamed(&fails, condition.clone()),
        // One machine, or chance: like cells pass, so no layer of theirs is at fault.
        Kind::OneHost | Kind::Scattered => condition.clone(),
    };
    let explained = explain(view, inquiry, &cause, &checks, &fails);
    let expected = view.waivers.iter().any(|waiver| waiver.tally.failing > 0);
    let waived = |cell: &&super::Cell<'_>| {
        expected && !cell.role.is_control() && view.waiver(cell.id, &view.checks[first]).is_some()
    };
    let failing = view.cells.iter().zip(&fails).filter(|(_, fails)| **fails == Some(true)).map(|(cell, _)| cell);
    let waived = failing.filter(waived).count();
    let exact = exact(view, &by_vector, &spread);
    let controls = controls(view, &by_vector, &spread);
    let mut seen: Vec<(String, usize)> = seen.into_iter().map(|(text, cells)| (text.to_owned(), cells)).collect();
    seen.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let what = seen.first().map_or("fails", |(text, _)| text.as_str());
    let of_two = || {
        let more = if checks.len() > 2 { format!(" and {} more", checks.len() - 2) } else { String::new() };
        names(checks.iter().take(2).map(|&check| id(check)), 2) + &more
    };
    let title = match kind {
        Kind::Cause if seen_of_all(view, &by_vector, &checks, what) => {
            format!("{}: {}", of_two(), printable(what, 120))
        }
        Kind::Cause => {
            let others = count(checks.len() - 1, "other check");
            format!("{}: {}; {others} in the same cells", id(first), printable(what, 120))
        }
        Kind::OneHost => format!("{}: on one host only, hosts like it pass", of_two()),
        Kind::Scattered => {
            format!("{} fail here and there, where like cells pass: try again", count(checks.len(), "check"))
        }
    };
    let [hosts, engines, images] = spread;
    let axis = |names: Vec<&str>, (failing, of): (Vec<usize>, Vec<usize>)| -> Vec<Axis> {
        let values = names.into_iter().zip(failing.into_iter().zip(of));
        values
            .filter(|(_, (_, of))| *of > 0)
            .map(|(name, (failing, of))| Axis { name: name.to_owned(), failing, of })
            .collect()
    };
    Finding {
        id: name(kind, checks.iter().map(|&check| view.checks[check].clone())),
        kind,
        title,
        layer: match kind {
            Kind::Cause => layer(&cause),
            Kind::OneHost => Some("host".to_owned()),
            Kind::Scattered => None,
        },
        unanswered: explained.unanswered,
        mechanism: explained.mechanism.filter(|_| kind == Kind::Cause),
        mechanisms: explained.mechanisms,
        known: if kind == Kind::Cause { explained.known } else { vec![] },
        unexplained: cause.unexplained,
        exceptions: cause.exceptions,
        waived,
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

/// Whether every check of a finding answers what its first does most, in a cell that does.
fn seen_of_all(view: &View<'_>, by_vector: &[Option<&super::Seen>], checks: &[usize], what: &str) -> bool {
    let says = |answer: Option<&super::Seen>| answer.is_some_and(|answer| answer.is_fail() && answer.reason == what);
    let typical = by_vector.iter().position(|answer| says(*answer));
    typical.is_none_or(|vector| checks.iter().all(|&check| says(view.answer(vector, check))))
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
