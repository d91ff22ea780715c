//! `index.html`: one file, offline. What matters stands in it as text; the script adds filters, details and permalinks.
//! Escaping is minijinja's, by file name; only our own style, script and the encoded data are put in as they are.

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

use super::RenderError;
use super::findings::{Axis, Finding};
use super::page::{self, Embedded};
use super::table::{self, Table, Tile, Totals, tile};
use super::text::{count, names, printable, thousands};
use super::vectors::requirement_word;
use super::view::{View, fact};
use crate::catalog::Requirement;
use crate::judge::Verdict;
use crate::judge::known::Match;

const INDEX: &str = include_str!("report/index.html");
const MATRIX: &str = include_str!("report/matrix.html");
const FINDING: &str = include_str!("report/finding.html");
const STYLE: &str = include_str!("report/report.css");
const SCRIPTS: [&str; 4] = [
    include_str!("report/data.js"),
    include_str!("report/matrix.js"),
    include_str!("report/detail.js"),
    include_str!("report/report.js"),
];

/// Findings written in full.
const MAX_FINDINGS: usize = 40;
/// Reasons for cells that did not run, written in full.
const MAX_REASONS: usize = 30;
/// Hosts, engines and images listed in the text.
const MAX_SUBJECTS: usize = 200;

/// Everything the template is handed.
#[derive(Debug, Serialize)]
pub struct Page {
    title: String,
    id: String,
    started: String,
    took: String,
    rendered: String,
    abicus: String,
    probes: String,
    state: &'static str,
    headline: String,
    scope: String,
    verdicts: Vec<VerdictCount>,
    not_run: Vec<NotRun>,
    not_run_more: usize,
    notes: Vec<String>,
    waivers: Vec<WaiverView>,
    profile: String,
    changes: Vec<(String, &'static str, &'static str, String)>,
    findings: Vec<FindingView>,
    findings_may: Vec<FindingView>,
    findings_more: usize,
    native: Vec<Tile>,
    native_counts: String,
    matrix: Option<Table>,
    totals: Option<Totals>,
    controls: Option<Table>,
    control_cells: usize,
    groups: Vec<Group>,
    subjects: Vec<Subjects>,
    legend: Vec<(&'static str, &'static str, &'static str)>,
    cells: usize,
}

#[derive(Debug, Serialize)]
struct VerdictCount {
    word: &'static str,
    glyph: &'static str,
    cells: usize,
    number: String,
}

#[derive(Debug, Serialize)]
struct NotRun {
    verdict: &'static str,
    glyph: &'static str,
    reason: String,
    hint: Option<String>,
    known: Vec<KnownView>,
    cells: String,
    names: String,
}

/// A waiver for readers.
#[derive(Debug, Serialize)]
struct WaiverView {
    waiver: String,
    trouble: bool,
    says: String,
    about: String,
    link: Option<String>,
    covers: String,
}

/// A documented incompatibility for readers.
#[derive(Debug, Serialize)]
struct KnownView {
    id: &'static str,
    title: &'static str,
    shows: &'static str,
    fix: &'static str,
    workaround: &'static str,
    links: Vec<String>,
}

impl From<&Match> for KnownView {
    fn from(known: &Match) -> Self {
        let Match { id, title, shows, fix, workaround, links } = known.clone();
        Self { id, title, shows, fix, workaround, links }
    }
}

/// A finding for readers.
#[derive(Debug, Serialize)]
struct FindingView {
    id: String,
    title: String,
    subtitle: String,
    layer: Option<String>,
    mechanism: Option<String>,
    evidence: Vec<String>,
    known: Vec<KnownView>,
    waived: String,
    condition: Option<String>,
    besides: Vec<String>,
    requirement: &'static str,
    cells: String,
    seen: Vec<(String, String)>,
    spread: Vec<(&'static str, String)>,
    controls: String,
    breaks: Vec<String>,
    remedies: Vec<String>,
    checks: Vec<(String, String, &'static str)>,
    more_checks: usize,
}

#[derive(Debug, Serialize)]
struct Group {
    name: String,
    checks: usize,
    failing: usize,
    rows: Vec<CheckRow>,
}

#[derive(Debug, Serialize)]
struct CheckRow {
    id: String,
    title: String,
    requirement: &'static str,
    pass: usize,
    fail: usize,
    other: usize,
}

#[derive(Debug, Serialize)]
struct Subjects {
    word: &'static str,
    key: &'static str,
    rows: Vec<(String, String, String)>,
    more: usize,
}

/// Renders the page.
pub fn html(view: &View<'_>) -> Result<String, RenderError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.add_template("index.html", INDEX)?;
    environment.add_template("matrix.html", MATRIX)?;
    environment.add_template("finding.html", FINDING)?;
    #[derive(Serialize)]
    struct Whole {
        page: Page,
        data: Embedded,
        style: &'static str,
        scripts: [&'static str; 4],
    }
    let whole = Whole { page: page(view), data: page::embed(view)?, style: STYLE, scripts: SCRIPTS };
    Ok(environment.get_template("index.html")?.render(minijinja::value::Serde(whole))?)
}

/// What the template is handed, without style, script and embedded data.
pub fn page(view: &View<'_>) -> Page {
    let info = &view.run.info;
    let asked = view.asked().count();
    let verdicts = view.verdicts();
    let (may, weighty): (Vec<&Finding>, Vec<&Finding>) =
        view.findings.iter().partition(|finding| finding.requirement == Requirement::May);
    let mut not_run = super::outage::not_run(view);
    let not_run_more = not_run.len().saturating_sub(MAX_REASONS);
    not_run.truncate(MAX_REASONS);
    Page {
        title: printable(&info.name, 120),
        id: info.id.to_string(),
        started: instant(info.started),
        took: info.finished.map_or_else(String::new, |end| duration(end.duration_since(info.started))),
        rendered: instant(view.rendered_at),
        abicus: printable(&info.abicus, 60),
        probes: printable(&info.payload, 12),
        state: match (info.interrupted, info.finished) {
            (true, _) => "interrupted",
            (false, None) => "not finished",
            (false, Some(_)) => "finished",
        },
        headline: headline(asked, &verdicts),
        scope: [
            count(view.hosts.len(), "host"),
            count(view.engines.len(), "engine"),
            count(view.images.iter().filter(|image| !image.is_none()).count(), "image"),
            count(view.checks.len(), "check"),
        ]
        .join(" · "),
        verdicts: verdicts
            .iter()
            .map(|&(verdict, cells)| VerdictCount {
                word: verdict.word(),
                glyph: table::glyph(verdict),
                cells,
                number: thousands(cells),
            })
            .collect(),
        not_run: not_run
            .iter()
            .map(|not_run| NotRun {
                verdict: not_run.verdict.word(),
                glyph: table::glyph(not_run.verdict),
                reason: printable(&not_run.reason, 700),
                hint: not_run.hint.as_ref().map(|hint| printable(hint, 700)),
                known: not_run.known().iter().map(KnownView::from).collect(),
                cells: count(not_run.cells.len(), "cell"),
                names: names(cell_names(not_run).iter().map(String::as_str), 12),
            })
            .collect(),
        not_run_more,
        notes: view.notes.iter().map(|note| printable(note, 700)).collect(),
        waivers: view.waivers.iter().take(MAX_SUBJECTS).map(waiver_view).collect(),
        profile: printable(&view.terms.profile.name, 60),
        changes: changes(view),
        findings_more: weighty.len().saturating_sub(MAX_FINDINGS) + may.len().saturating_sub(MAX_FINDINGS),
        findings: weighty.into_iter().take(MAX_FINDINGS).map(|finding| finding_view(view, finding)).collect(),
        findings_may: may.into_iter().take(MAX_FINDINGS).map(|finding| finding_view(view, finding)).collect(),
        native: view.asked().filter(|cell| cell.id.image.is_none()).take(MAX_SUBJECTS).map(|cell| tile(cell)).collect(),
        native_counts: native_counts(view),
        matrix: table::table(view, |cell| !cell.role.is_control()),
        totals: (asked > table::TABLE_CELLS).then(|| table::totals(view)),
        controls: table::table(view, |cell| cell.role.is_control()),
        control_cells: view.controls().count(),
        groups: groups(view),
        subjects: subjects(view),
        legend: Verdict::ALL.iter().rev().map(|&v| (v.word(), table::glyph(v), meaning(v))).collect(),
        cells: asked,
    }
}

fn waiver_view(waiver: &super::WaiverUse) -> WaiverView {
    let owner = waiver.owner.as_ref().map(|owner| format!(", {owner}")).unwrap_or_default();
    let tally = waiver.tally;
    WaiverView {
        waiver: printable(&waiver.waiver, 300),
        trouble: waiver.fate.is_trouble(),
        says: waiver.words(),
        about: printable(&format!("{} (until {}{owner})", waiver.reason, waiver.until), 400),
        // Only what a browser may follow becomes a link.
        link: waiver.link.clone().filter(|link| link.starts_with("https://")).map(|link| printable(&link, 400)),
        covers: format!("{} fail and {} pass in {}", tally.failing, tally.passing, count(tally.cells, "cell")),
    }
}

/// What the profile changed: check, from, to, why.
fn changes(view: &View<'_>) -> Vec<(String, &'static str, &'static str, String)> {
    let word = requirement_word;
    let changes = view.changes.iter().take(MAX_SUBJECTS);
    changes.map(|c| (c.check.to_string(), word(c.from), word(c.to), printable(&c.reason, 300))).collect()
}

fn cell_names(not_run: &super::outage::NotRun<'_, '_>) -> Vec<String> {
    not_run.cells.iter().map(|cell| cell.id.to_string()).collect()
}

/// `100 native cells: 2 fail, 98 pass`.
fn native_counts(view: &View<'_>) -> String {
    let native: Vec<Verdict> = view.asked().filter(|cell| cell.id.image.is_none()).map(|cell| cell.verdict).collect();
    let of = |verdict: &Verdict| native.iter().filter(|known| *known == verdict).count();
    let counts = Verdict::ALL.iter().rev().map(|verdict| (verdict, of(verdict))).filter(|(_, cells)| *cells > 0);
    let words: Vec<String> = counts.map(|(verdict, cells)| format!("{} {verdict}", thousands(cells))).collect();
    format!("{}: {}", count(native.len(), "native cell"), words.join(", "))
}

/// What a verdict says, in a few words.
pub fn meaning(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Skip => "left out on purpose, with a reason",
        Verdict::Pass => "every must and should check passes",
        Verdict::Degraded => "every must check passes, some should check fails",
        Verdict::Miss => "planned, and nothing is known of it",
        Verdict::Error => "the rig broke: says nothing about the image",
        Verdict::Fail => "some must check fails: ordinary programs suffer",
    }
}

/// The run in one sentence.
pub fn headline(asked: usize, verdicts: &[(Verdict, usize)]) -> String {
    let number = |verdict| verdicts.iter().find(|(v, _)| *v == verdict).map_or(0, |(_, cells)| *cells);
    let judged: usize = [Verdict::Pass, Verdict::Degraded, Verdict::Fail].map(number).iter().sum();
    if asked == 0 {
        return "No cell was asked for.".to_owned();
    }
    if judged == 0 {
        return format!("Nothing is known of {}: none of them ran.", count(asked, "cell"));
    }
    let mut text = match (number(Verdict::Fail), number(Verdict::Degraded)) {
        (0, 0) => format!("{} work.", count(judged, "cell")),
        (0, degraded) => format!("{} of {} are degraded, none fails.", thousands(degraded), count(judged, "cell")),
        (fail, 0) => format!("{} of {} fail.", thousands(fail), count(judged, "cell")),
        (fail, degraded) => {
            format!("{} of {} fail, {} are degraded.", thousands(fail), count(judged, "cell"), thousands(degraded))
        }
    };
    let unknown = number(Verdict::Error) + number(Verdict::Miss);
    for (cells, what) in [(unknown, "could not be judged"), (number(Verdict::Skip), "left out")] {
        if cells > 0 {
            text += &format!(" {} {what}.", thousands(cells));
        }
    }
    text
}

fn finding_view(view: &View<'_>, finding: &Finding) -> FindingView {
    const MAX_CHECKS: usize = 60;
    let rows = || finding.checks.iter().filter_map(|&check| view.catalogue.row(&view.checks[check]));
    let distinct = |texts: Vec<&str>| {
        let mut out: Vec<String> = vec![];
        for text in texts.into_iter().filter(|text| !text.is_empty()) {
            if !out.iter().any(|known| known == text) && out.len() < 3 {
                out.push(text.to_owned());
            }
        }
        out
    };
    let subtitle = match finding.checks.as_slice() {
        [check] => view.catalogue.row(&view.checks[*check]).map(|row| row.title.clone()).unwrap_or_default(),
        _ => String::new(),
    };
    let of: usize = finding.hosts.iter().map(|axis| axis.of).sum();
    FindingView {
        id: finding.id.clone(),
        title: printable(&finding.title, 300),
        subtitle,
        layer: finding.layer.clone(),
        condition: finding.condition.as_deref().map(|condition| printable(condition, 300)),
        mechanism: mechanism(finding),
        evidence: finding
            .mechanism
            .iter()
            .flat_map(|found| &found.evidence)
            .take(8)
            .map(|line| printable(line, 400))
            .collect(),
        known: finding.known.iter().map(KnownView::from).collect(),
        waived: match (finding.waived, finding.is_waived()) {
            (0, _) => String::new(),
            (_, true) => "waived".to_owned(),
            (waived, false) => format!("waived in {}", count(waived, "cell")),
        },
        besides: besides(finding),
        requirement: requirement_word(finding.requirement),
        cells: format!("{} of {}", thousands(finding.cells), count(of, "cell")),
        seen: finding.seen.iter().take(4).map(|(seen, cells)| (seen.clone(), count(*cells, "cell"))).collect(),
        spread: spread(finding),
        controls: controls(&finding.controls),
        breaks: distinct(rows().map(|row| row.breaks.as_str()).collect()),
        remedies: distinct(rows().filter_map(|row| row.remedy.as_deref()).collect()),
        checks: finding
            .checks
            .iter()
            .take(MAX_CHECKS)
            .map(|&check| {
                let id = &view.checks[check];
                let title = view.catalogue.row(id).map(|row| row.title.clone()).unwrap_or_default();
                (id.to_string(), title, requirement_word(view.requirement(id)))
            })
            .collect(),
        more_checks: finding.checks.len().saturating_sub(MAX_CHECKS),
    }
}

/// What inside the layer is at fault: `seccomp-rule: the seccomp filter answers EPERM to clone3`.
pub fn mechanism(finding: &Finding) -> Option<String> {
    let found = finding.mechanism.as_ref()?;
    let likely = if found.sure { "" } else { "likely " };
    let others = match finding.mechanisms.as_slice() {
        [] => String::new(),
        [one] => format!("; {one}"),
        [one, more @ ..] => format!("; {one}, and {} more", thousands(more.len())),
    };
    Some(printable(&format!("{likely}{}: {}{others}", found.id, found.what), 400))
}

/// Thresholds, ties, and how far the condition holds.
fn besides(finding: &Finding) -> Vec<String> {
    let unanswered = finding.unanswered.iter().take(3).map(|text| printable(text, 300));
    let rules = finding.thresholds.iter().chain(&finding.ties).take(4).map(|text| printable(text, 300));
    let mut lines: Vec<String> = unanswered.chain(rules).collect();
    if finding.condition.is_some() && finding.unexplained + finding.exceptions > 0 {
        lines.push(format!(
            "{} of like cells fail though this does not hold, {} pass though it does",
            count(finding.unexplained, "group"),
            thousands(finding.exceptions)
        ));
    }
    lines
}

/// Where a finding is seen: per axis that matters, the values, with counts where only part of a value fails; axes that do
/// not matter last, in one line.
pub fn spread(finding: &Finding) -> Vec<(&'static str, String)> {
    let axes = [
        ("engine", "engines", &finding.engines),
        ("image", "images", &finding.images),
        ("host", "hosts", &finding.hosts),
    ];
    let decides = finding.exact.map(|[host, engine, image]| [engine, image, host]);
    let mut out = vec![];
    let mut every = vec![];
    for (at, (one, many, axis)) in axes.into_iter().enumerate() {
        let failing: Vec<&Axis> = axis.iter().filter(|value| value.failing > 0).collect();
        let exact = decides.map(|decides| decides[at]);
        if exact == Some(false) {
            // A native cell has no image, so it counts for none.
            let named: Vec<&&Axis> = failing.iter().filter(|value| value.name != "no image").collect();
            every.push(match named.as_slice() {
                [] => "no image".to_owned(),
                [only] => format!("{one} {}", only.name),
                many => format!("every {one} ({})", thousands(many.len())),
            });
            continue;
        }
        let parts: Vec<String> = failing
            .iter()
            .map(|value| match exact.is_some() || value.failing == value.of {
                true => value.name.clone(),
                false => format!("{} ({} of {})", value.name, thousands(value.failing), thousands(value.of)),
            })
            .collect();
        out.push((if failing.len() == 1 { one } else { many }, names(parts.iter().map(String::as_str), 10)));
    }
    if !every.is_empty() {
        out.push((if out.is_empty() { "where" } else { "with" }, every.join(", ")));
    }
    out
}

/// What the controls answer, in words.
fn controls(axes: &[Axis]) -> String {
    let parts: Vec<String> = axes
        .iter()
        .map(|axis| match (axis.failing, axis.of) {
            (0, of) => format!("{}: passes ({of})", axis.name),
            (failing, of) if failing == of => format!("{}: fails too ({of})", axis.name),
            (failing, of) => format!("{}: fails in {failing} of {of}", axis.name),
        })
        .collect();
    parts.join(" · ")
}

fn groups(view: &View<'_>) -> Vec<Group> {
    let mut weights = vec![0usize; view.vectors.len()];
    for vector in view.asked().filter_map(|cell| cell.vector) {
        weights[vector] += 1;
    }
    let mut counts = vec![[0usize; 3]; view.checks.len()];
    for (vector, weight) in view.vectors.iter().zip(weights).filter(|(_, weight)| *weight > 0) {
        for &(check, seen) in &vector.results {
            let at = match view.seen[seen as usize].outcome {
                "pass" => 0,
                "fail" => 1,
                _ => 2,
            };
            counts[check as usize][at] += weight;
        }
    }
    let mut groups: Vec<Group> = vec![];
    for (id, [pass, fail, other]) in view.checks.iter().zip(counts) {
        if groups.last().is_none_or(|group| group.name != id.group()) {
            groups.push(Group { name: id.group().to_owned(), checks: 0, failing: 0, rows: vec![] });
        }
        let Some(group) = groups.last_mut() else { continue };
        group.checks += 1;
        group.failing += usize::from(fail > 0);
        group.rows.push(CheckRow {
            id: id.to_string(),
            title: view.catalogue.row(id).map(|row| row.title.clone()).unwrap_or_default(),
            requirement: requirement_word(view.requirement(id)),
            pass,
            fail,
            other,
        });
    }
    groups
}

fn subjects(view: &View<'_>) -> Vec<Subjects> {
    let fault = |known: Option<&crate::store::Known>| {
        let fault = known.and_then(|known| known.fault.as_ref());
        fault.map(|fault| printable(&fault.to_string(), 400)).unwrap_or_default()
    };
    let join = |parts: &[&str]| {
        let parts: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
        printable(&parts.join(" · "), 300)
    };
    let hosts = view.hosts.iter().take(MAX_SUBJECTS).map(|id| {
        let known = view.host(id);
        let note = join(&[
            &table::host_note(view, id),
            fact(known, &["arch", "kernel.machine"]),
            fact(known, &["os.name", "os.id"]),
            fact(known, &["cpu.model"]),
        ]);
        (id.to_string(), note, fault(known))
    });
    let images = view.images.iter().filter(|id| !id.is_none()).take(MAX_SUBJECTS).map(|id| {
        let known = view.image(id);
        let note = join(&[
            &table::image_note(view, id),
            fact(known, &["os.name", "os.id"]),
            fact(known, &["arch"]),
            fact(known, &["digest"]),
        ]);
        (id.to_string(), note, fault(known))
    });
    let engines = view.run.engines.iter().take(MAX_SUBJECTS).map(|((host, engine), known)| {
        let known = Some(known);
        let note = join(&[
            fact(known, &["kind", "engine.kind"]),
            fact(known, &["version", "engine.version"]),
            fact(known, &["runtime", "engine.runtime", "runtime.name"]),
            fact(known, &["runtime.version", "engine.runtime.version"]),
        ]);
        (format!("{host}:{engine}"), note, fault(known))
    });
    let listed = |word, key, rows: Vec<(String, String, String)>, all: usize| {
        let more = all.saturating_sub(rows.len());
        Subjects { word, key, rows, more }
    };
    vec![
        listed("Hosts", "host", hosts.collect(), view.hosts.len()),
        listed("Engines", "pair", engines.collect(), view.run.engines.len()),
        listed("Images", "image", images.collect(), view.images.iter().filter(|id| !id.is_none()).count()),
    ]
}

/// `2027-01-31 22:05:09 UTC`.
pub fn instant(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// `1 h 2 min`, `3 min 4 s`, `5.6 s`.
pub fn duration(time: jiff::SignedDuration) -> String {
    let seconds = time.as_secs().max(0);
    match seconds {
        0..60 => format!("{:.1} s", time.as_secs_f64().max(0.0)),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}
