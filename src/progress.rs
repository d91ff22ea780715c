//! Events → bars on a terminal, plain lines elsewhere, JSON lines for machines, or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::catalog::Catalogue;
use crate::execute::{Done, Event};
use crate::id::{CellId, HostId, ImageId};
use crate::plan::Plan;
use crate::store::{CellRecord, State};

/// How a run tells about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Bars on a terminal, lines elsewhere, on standard error.
    Auto,
    /// Warnings only.
    Quiet,
    /// Every event as a JSON line on standard output.
    Json,
}

/// Shows events until the channel closes.
pub async fn show(plan: &Plan, done: &Done, manner: Manner, mut events: tokio::sync::mpsc::UnboundedReceiver<Event>) {
    let mut shown: Box<dyn Show> = match manner {
        Manner::Json => Box::new(Json),
        Manner::Quiet => Box::new(Quiet),
        Manner::Auto if std::io::stderr().is_terminal() => Box::new(Bars::new(plan, done)),
        Manner::Auto => Box::new(Lines::default()),
    };
    while let Some(event) = events.recv().await {
        shown.event(&event);
    }
}

trait Show: Send {
    fn event(&mut self, event: &Event);
}

struct Quiet;

impl Show for Quiet {
    fn event(&mut self, event: &Event) {
        if let Event::Warning { text } = event {
            anstream::eprintln!("warning: {text}");
        }
    }
}

struct Json;

impl Show for Json {
    fn event(&mut self, event: &Event) {
        if let Ok(line) = serde_json::to_string(event) {
            // A reader that went away is no reason to stop the run.
            let _ = writeln!(std::io::stdout(), "{line}");
        }
    }
}

#[derive(Default)]
struct Lines {
    total: usize,
    done: usize,
    /// What was last said of an image, so that a step is one line and not hundreds.
    steps: BTreeMap<ImageId, String>,
}

impl Show for Lines {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Planned { cells, done } => {
                (self.total, self.done) = (*cells, *done);
            }
            Event::ImageStep { image, what, .. } => {
                if self.steps.get(image) != Some(what) {
                    self.steps.insert(image.clone(), what.clone());
                    anstream::eprintln!("image {image}: {what}");
                }
            }
            // A guest without KVM takes minutes, in which nothing else would be seen.
            Event::Given { cell, ms: ms @ 3000.. } => {
                anstream::eprintln!("image {}: given to {}:{} in {ms} ms", cell.image, cell.host, cell.engine);
            }
            Event::CellDone { record } => {
                self.done += 1;
                anstream::eprintln!("[{}/{}] {}", self.done, self.total, cell_line(record));
            }
            other => {
                if let Some(line) = notable(other) {
                    anstream::eprintln!("{line}");
                }
            }
        }
    }
}

struct Bars {
    bars: MultiProgress,
    total: ProgressBar,
    hosts: BTreeMap<HostId, ProgressBar>,
    images: BTreeMap<ImageId, ProgressBar>,
    running: BTreeSet<CellId>,
    /// Cells whose engine is being given their image.
    giving: BTreeSet<CellId>,
    started: Instant,
    /// Cells that were done when it started: they say nothing of how fast it goes.
    before: u64,
}

/// More bars than this would scroll.
const MAX_HOST_BARS: usize = 12;

impl Bars {
    fn new(plan: &Plan, done: &Done) -> Self {
        let bars = MultiProgress::new();
        let mut cells: BTreeMap<HostId, u64> = BTreeMap::new();
        for planned in plan.cells.iter().filter(|planned| !done.cells.contains(&planned.cell)) {
            *cells.entry(planned.cell.host.clone()).or_default() += 1;
        }
        let hosts = if cells.len() > 1 && cells.len() <= MAX_HOST_BARS {
            let style = style("{prefix:>16.dim} {bar:24.cyan/dim} {pos}/{len}");
            let bar = |(host, count): (HostId, u64)| {
                let bar = bars.add(ProgressBar::new(count)).with_style(style.clone()).with_prefix(host.to_string());
                (host, bar)
            };
            cells.into_iter().map(bar).collect()
        } else {
            BTreeMap::new()
        };
        let before = done.cells.len() as u64;
        let style = style("{prefix:>16.bold} {bar:24.green/dim} {pos}/{len} {elapsed_precise} {wide_msg:.dim}");
        let total = bars.add(ProgressBar::new(0)).with_style(style).with_prefix("cells");
        total.enable_steady_tick(Duration::from_millis(250));
        let (images, running, giving) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { bars, total, hosts, images, running, giving, started: Instant::now(), before }
    }

    fn message(&self) -> String {
        let (done, all) = (self.total.position(), self.total.length().unwrap_or(0));
        let left = match done.saturating_sub(self.before) {
            0 => String::new(),
            new => {
                let each = self.started.elapsed().as_secs_f64() / new as f64;
                format!("{:.0} s left  ", each * (all.saturating_sub(done)) as f64)
            }
        };
        let given = |cell: &CellId| format!("giving {} to {}:{}", cell.image, cell.host, cell.engine);
        let names = self.running.iter().map(CellId::to_string).chain(self.giving.iter().map(given));
        let names: Vec<String> = names.take(3).collect();
        let more = (self.running.len() + self.giving.len()).saturating_sub(names.len());
        let more = if more > 0 { format!(" +{more}") } else { String::new() };
        format!("{left}{}{more}", names.join(" "))
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─")
}

impl Show for Bars {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Planned { cells, done } => {
                self.total.set_length(*cells as u64);
                self.total.set_position(*done as u64);
            }
            Event::ImageStep { image, what, done, total } => {
                let bar = self.images.entry(image.clone()).or_insert_with(|| {
                    let bar = self.bars.insert_before(&self.total, ProgressBar::new(0));
                    bar.set_style(style("{prefix:>16.dim} {bar:24.blue/dim} {wide_msg}"));
                    bar.set_prefix(image.to_string());
                    bar
                });
                bar.set_length(total.unwrap_or(0));
                bar.set_position(*done);
                bar.set_message(what.clone());
            }
            Event::Image { image, .. } => {
                if let Some(bar) = self.images.remove(image) {
                    bar.finish_and_clear();
                    self.bars.remove(&bar);
                }
            }
            Event::Giving { cell } => {
                self.giving.insert(cell.clone());
            }
            Event::Given { cell, .. } => {
                self.giving.remove(cell);
            }
            Event::CellStarted { cell, .. } => {
                self.running.insert(cell.clone());
            }
            Event::CellDone { record } => {
                self.running.remove(&record.cell);
                self.total.inc(1);
                if let Some(bar) = self.hosts.get(&record.cell.host) {
                    bar.inc(1);
                }
                let went_wrong = match &record.state {
                    State::Broken { .. } => true,
                    State::Ran { faults, .. } => !faults.is_empty(),
                    State::Skipped { .. } => false,
                };
                if went_wrong {
                    let _ = self.bars.println(cell_line(record));
                }
            }
            Event::Finished { .. } => {
                for bar in self.hosts.values().chain(self.images.values()) {
                    bar.finish_and_clear();
                }
                self.total.finish_and_clear();
            }
            Event::Engine { .. } | Event::Warning { .. } => {}
        }
        if let Some(line) = notable(event) {
            let _ = self.bars.println(line);
        }
        self.total.set_message(self.message());
    }
}

/// Events that are worth a line wherever the user reads.
fn notable(event: &Event) -> Option<String> {
    match event {
        Event::Engine { host, engine, fault: Some(fault) } => {
            Some(format!("engine {host}:{engine} cannot be used: {}{}", fault.cause, help(&fault.hint)))
        }
        Event::Image { image, fault: Some(fault) } => {
            Some(format!("image {image} cannot be used: {}{}", fault.cause, help(&fault.hint)))
        }
        Event::Warning { text } => Some(format!("warning: {text}")),
        Event::Finished { interrupted: true } => Some("interrupted: running cells were stopped and removed".to_owned()),
        _ => None,
    }
}

fn help(hint: &Option<String>) -> String {
    hint.as_ref().map(|hint| format!("\n  help: {hint}")).unwrap_or_default()
}

fn cell_line(record: &CellRecord) -> String {
    let attempts = match record.attempts.len() {
        0 | 1 => String::new(),
        n => format!(" after {n} attempts"),
    };
    let what = match &record.state {
        State::Skipped { reason } => format!("skipped: {reason}"),
        State::Broken { fault } => format!("could not run: {fault}{}", help(&fault.hint)),
        State::Ran { probes, faults, .. } => {
            let reported: usize = probes.iter().map(|probe| probe.reported).sum();
            let faults = match faults.first() {
                Some(fault) => format!(", incomplete: {fault}{}", help(&fault.hint)),
                None => String::new(),
            };
            let ms: u64 = record.attempts.iter().map(|attempt| attempt.timing.run_ms).sum();
            format!("{reported} checks in {ms} ms{faults}")
        }
    };
    format!("{} {what}{attempts}", record.cell)
}

/// The catalogue's size, for a first line.
pub fn greeting(plan: &Plan, catalogue: &Catalogue) -> String {
    let (cells, controls) = plan.counts();
    format!("{cells} cells and {controls} control cells, {} checks known", catalogue.len())
}
