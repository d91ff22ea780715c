//! What judging a night costs: 90,000 cells × 800 checks to verdicts and findings, and how many hidden rules are found again.
//! Prints `NAME<tab>VALUE<tab>UNIT[<tab>LIMIT]`, see `ci/bench`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench that cannot measure has to stop")]

#[path = "../tests/support/grid.rs"]
mod grid;
#[path = "../tests/support/synthetic.rs"]
#[allow(dead_code, reason = "the bench uses its own part")]
mod synthetic;

use std::time::Instant;

use abicus::render::View;
use synthetic::Size;

/// Hidden rules tried.
const RULES: u64 = 500;

fn main() {
    // One cell in a hundred has results of its own.
    let size = Size { noise: 100, ..Size::LARGE };
    let run = synthetic::run(size);
    let catalogue = synthetic::catalogue(size);
    let at = "2026-11-24T03:00:00Z".parse().unwrap();
    let mut best = f64::INFINITY;
    let mut shape = (0, 0, 0);
    for _ in 0..3 {
        let begun = Instant::now();
        let view = View::new(&run, &catalogue, at);
        best = best.min(begun.elapsed().as_secs_f64());
        shape = (view.cells.len(), view.checks.len(), view.findings.len());
    }
    let (cells, checks, findings) = shape;
    println!("cells judged\t{cells}\tcells");
    println!("checks\t{checks}\tchecks");
    println!("findings\t{findings}\tfindings\t200");
    println!("judged and learned\t{best:.2}\ts\t2");
    println!("most memory, the run itself included\t{}\tMB\t500", peak());

    let begun = Instant::now();
    for (flipped, limit) in [(0.0, 3.0), (0.02, 10.0)] {
        let lost = (0..RULES).filter(|&seed| !grid::recovered(seed, flipped)).count();
        let share = lost as f64 * 100.0 / RULES as f64;
        println!("hidden rules not found, {:.0} % of labels flipped\t{share:.1}\t%\t{limit}", flipped * 100.0);
    }
    println!("a rule takes\t{:.1}\tms", begun.elapsed().as_secs_f64() * 1000.0 / (2 * RULES) as f64);
}

/// Most memory this process had, MB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}
