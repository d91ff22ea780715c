//! Two hundred hosts in one run: one sshd on loopback under many names. What the driver needs for them is bounded, and
//! nothing of it stays. Needs root, since sshd lets only its own user in otherwise.
#![allow(clippy::unwrap_used, clippy::panic)]

mod host_support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use host_support::Lab;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const HOSTS: usize = 200;
/// What the driver may hold in memory at most, KiB.
const MEMORY: u64 = 200 << 10;
/// Soft limit of open files of the driver, which is fewer than the hosts need: it has to ask for more.
const FILES: u64 = 64;

fn resident_at_most(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?.parse().ok()
}

fn open_files(pid: u32) -> Option<usize> {
    fs::read_dir(format!("/proc/{pid}/fd")).ok().map(Iterator::count)
}

/// Of this process, and so of the driver.
fn limit_files() {
    let limit = Rlimit { current: Some(FILES), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
}

#[test]
#[ignore = "a minute or two"]
fn two_hundred_hosts_cost_the_driver_little_and_leave_nothing() {
    let lab = Lab::new();
    let before = lab.left();
    let names: Vec<String> = (0..HOSTS).map(|n| format!("box{n}")).chain(["dead".into(), "hole".into()]).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    lab.matrix(&names, "[defaults]\ntimeout = '600s'\n[[engine]]\nname = 'built-in'\nkind = 'built-in'\n");
    limit_files();
    let mut run = lab.command(&["run", "--no-controls", "--json"]);
    run.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut driver = run.spawn().unwrap();
    let pid = driver.id();
    let errors = driver.stderr.take().unwrap();
    let said = std::thread::spawn(move || std::io::read_to_string(errors).unwrap());
    let mut done = 0;
    let mut most = 0;
    for line in BufReader::new(driver.stdout.take().unwrap()).lines() {
        done += usize::from(line.unwrap().contains("\"cell-done\""));
        most = most.max(open_files(pid).unwrap_or(0));
        if done == names.len() {
            break;
        }
    }
    // From here on it writes its reports, and holds on to no host.
    let (mut resident, mut open) = (0, usize::MAX);
    while driver.try_wait().unwrap().is_none() {
        resident = resident.max(resident_at_most(pid).unwrap_or(0));
        open = open.min(open_files(pid).filter(|n| *n > 0).unwrap_or(usize::MAX));
    }
    let said = said.join().unwrap();
    let summary = lab.newest_run().join("summary.md");
    let cells = lab.cells();
    let failed: Vec<_> = cells.values().filter(|cell| cell["verdict"] != "pass").collect();
    let causes: Vec<_> = failed.iter().map(|cell| (&cell["cell"], &cell["verdict"], &cell["fault"])).collect();
    eprintln!("{} of {HOSTS} passed; {resident} KiB, {most} open files, {open} in the end", cells.len() - failed.len());
    assert_eq!(causes.len(), 2, "{causes:#?}\n{said}\n{}", fs::read_to_string(summary).unwrap());
    assert!(causes.iter().all(|(cell, ..)| cell.starts_with("dead") || cell.starts_with("hole")), "{causes:#?}");
    assert!(0 < resident && resident < MEMORY, "{resident} KiB");
    assert!(most as u64 > FILES && open < 60, "{most} open files, {open} in the end");
    lab.assert_nothing_is_left(&before);
}

/// Nor is what the launcher needs for itself, which the built-in engine's cells need more of.
#[test]
fn what_the_driver_needs_is_not_what_programs_here_find() {
    let lab = Lab::new();
    limit_files();
    let engines = ["native", "built-in"].map(|kind| format!("[[engine]]\nname = '{kind}'\nkind = '{kind}'\n"));
    lab.matrix(&[], &format!("[[host]]\nname = 'local'\n{}", engines.concat()));
    let (output, cells) = lab.run(&["--no-controls"]);
    assert!(cells.len() == 2 && cells.values().all(|cell| cell["verdict"] != "error"), "{cells:#?} {output:?}");
    let results = fs::read_to_string(lab.newest_run().join("results.csv")).unwrap();
    let soft: Vec<_> = results.lines().filter(|line| line.contains(",limit.nofile.soft,")).collect();
    assert!(!soft.is_empty() && soft.iter().all(|line| line.contains(&format!(",{FILES},"))), "{soft:?} {output:?}");
}
