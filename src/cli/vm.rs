//! `abicus vm`: kernels and disks of virtual machines, made ahead of a run, listed, removed.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Error, Exit, Format, MatrixArgument, cache_dir, print, print_json, rig, table};
use crate::fault::Fault;
use crate::host::vm::shelf::{Kept, Shelf};
use crate::host::vm::{disk, kernel};
use crate::spec::{DiskRecipe, HostKind, Kernel, KernelPackage};

/// Make, list and remove kernels and disks of virtual machines
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  abicus vm build                       what the virtual machines of matrix.toml need
  abicus vm build --kernel bookworm --disk trixie
  abicus vm list --format json | jq -r '.[].name'
  abicus vm rm 'disk *'

They are made from the distribution's packages by mmdebstrap, and kept until they are removed; a run makes
what is missing.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make what is missing
    Build(Build),
    /// List what is kept
    List(List),
    /// Remove what is kept
    Rm(Remove),
}

#[derive(Debug, Args)]
struct Build {
    #[command(flatten)]
    matrix: MatrixArgument,
    /// The kernel of this suite, instead of what the matrix needs (repeatable)
    #[arg(long, value_name = "SUITE")]
    kernel: Vec<String>,
    /// A disk with the engines of this suite, instead of what the matrix needs (repeatable)
    #[arg(long, value_name = "SUITE")]
    disk: Vec<String>,
    /// Make it again, from the packages of today
    #[arg(long)]
    fresh: bool,
}

#[derive(Debug, Args)]
struct List {
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, Args)]
struct Remove {
    /// Names as `abicus vm list` prints them, each a glob
    #[arg(value_name = "NAME", required_unless_present = "all")]
    names: Vec<String>,
    /// Everything
    #[arg(long)]
    all: bool,
}

pub(super) fn run(arguments: Arguments) -> Result<Exit, Error> {
    let shelf = Shelf::at(&cache_dir())?;
    match arguments.command {
        Command::Build(arguments) => build(&shelf, &arguments),
        Command::List(arguments) => list(&shelf, arguments.format),
        Command::Rm(arguments) => remove(&shelf, &arguments),
    }
}

/// What is to be there.
#[derive(Debug, Default)]
struct Wanted {
    kernels: BTreeSet<KernelPackage>,
    disks: BTreeSet<DiskRecipe>,
}

fn wanted(arguments: &Build) -> Result<Wanted, Error> {
    let mut wanted = Wanted::default();
    if arguments.kernel.is_empty() && arguments.disk.is_empty() {
        for host in arguments.matrix.read()?.0.hosts {
            let HostKind::Vm(vm) = host.kind else { continue };
            if let Kernel::Package(package) = vm.kernel {
                wanted.kernels.insert(package);
            }
            wanted.disks.extend(vm.disk);
        }
        return Ok(wanted);
    }
    let plain = |name: &&String| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') && !name.starts_with('-')
    };
    for suite in arguments.kernel.iter().chain(&arguments.disk) {
        if !plain(&suite) {
            return Err(Error::usage(format!("`{suite}` is not the name of a suite"), "such as `bookworm`"));
        }
    }
    wanted.kernels.extend(arguments.kernel.iter().map(|suite| KernelPackage::of(suite)));
    wanted.disks.extend(arguments.disk.iter().map(|suite| DiskRecipe { suite: suite.clone(), include: vec![] }));
    Ok(wanted)
}

fn build(shelf: &Shelf, arguments: &Build) -> Result<Exit, Error> {
    let wanted = wanted(arguments)?;
    if wanted.kernels.is_empty() && wanted.disks.is_empty() {
        print("nothing to make: no virtual machine of the matrix needs a package\n")?;
        return Ok(Exit::Expected);
    }
    let cancel = Arc::new(AtomicBool::new(false));
    let signals = rig::runtime()?;
    let stop = cancel.clone();
    signals.spawn(super::on_signal(move || stop.store(true, Ordering::Relaxed)));
    let said = Mutex::new(String::new());
    // One line for each step, and none for a step that is only repeated.
    let say = |what: &str| {
        let mut last = said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *last != what {
            anstream::eprintln!("{what}");
            what.clone_into(&mut last);
        }
    };
    let made = |began: Instant, result: Result<Kept, Fault>| match result {
        Ok(kept) => {
            let took = began.elapsed().as_secs_f64();
            print(&format!("{} in {took:.1} s: {}\n", kept.label.name, kept.dir.display()))?;
            Ok::<bool, Error>(true)
        }
        // Said once, at the end.
        Err(_) if cancel.load(Ordering::Relaxed) => Ok(false),
        Err(fault) => {
            let hint = fault.hint.map(|hint| format!("\n  help: {hint}")).unwrap_or_default();
            anstream::eprintln!("error: {}{hint}", fault.cause);
            Ok(false)
        }
    };
    if arguments.fresh {
        forget(shelf, &wanted)?;
    }
    // Each waits for a mirror and unpacks in turns: two at a time keep a line and two processors busy.
    let todo = wanted.kernels.iter().map(What::Kernel).chain(wanted.disks.iter().map(What::Disk));
    let todo = Mutex::new(todo.collect::<Vec<_>>().into_iter());
    let work = || {
        let mut fine = true;
        loop {
            if cancel.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let next = todo.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
            let began = Instant::now();
            let result = match next {
                None => return Ok(fine),
                Some(What::Kernel(package)) => kernel::packaged(shelf, package, &cancel, &say),
                Some(What::Disk(recipe)) => disk::with_engines(shelf, recipe, &cancel, &say),
            };
            fine &= made(began, result)?;
        }
    };
    let fine = std::thread::scope(|scope| {
        let other = scope.spawn(work);
        let mine: Result<bool, Error> = work();
        // A thread that panicked made nothing.
        let other = other.join().unwrap_or(Ok(false));
        Ok::<_, Error>(mine? & other?)
    })?;
    if cancel.load(Ordering::Relaxed) {
        anstream::eprintln!("interrupted; what is whole is kept, and `abicus vm build` goes on");
        return Ok(Exit::Interrupted);
    }
    Ok(if fine { Exit::Expected } else { Exit::CouldNotRun })
}

/// One thing to make.
enum What<'a> {
    Kernel(&'a KernelPackage),
    Disk(&'a DiskRecipe),
}

/// Takes what is to be made afresh off the shelf.
fn forget(shelf: &Shelf, wanted: &Wanted) -> Result<(), Error> {
    let kernels = wanted.kernels.iter().map(kernel::name);
    let names: BTreeSet<String> = kernels.chain(wanted.disks.iter().map(disk::name)).collect();
    for listed in shelf.list()? {
        if listed.label.is_ok_and(|label| names.contains(&label.name)) {
            shelf.remove(&listed.id)?;
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct Row {
    name: String,
    state: String,
    made: String,
    mib: u64,
    says: String,
    id: String,
}

fn rows(shelf: &Shelf) -> Result<Vec<Row>, Error> {
    let row = |listed: crate::host::vm::shelf::Listed| {
        let mib = listed.bytes.div_ceil(1 << 20);
        match listed.label {
            Ok(label) => Row {
                name: label.name,
                state: "good".to_owned(),
                made: label.made.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
                mib,
                says: label.facts.values().cloned().collect::<Vec<_>>().join(", "),
                id: listed.id,
            },
            Err(why) => Row {
                name: listed.id.clone(),
                state: why,
                made: String::new(),
                mib,
                says: String::new(),
                id: listed.id,
            },
        }
    };
    Ok(shelf.list()?.into_iter().map(row).collect())
}

fn list(shelf: &Shelf, format: Format) -> Result<Exit, Error> {
    let rows = rows(shelf)?;
    if format == Format::Json {
        print_json(&rows)?;
        return Ok(Exit::Expected);
    }
    if rows.is_empty() {
        print("no kernels and disks are kept; `abicus vm build` makes some\n")?;
        return Ok(Exit::Expected);
    }
    let mut printed = table(&["name", "state", "made", "MiB", "what"]);
    for row in rows {
        printed.add_row([row.name, row.state, row.made, row.mib.to_string(), row.says]);
    }
    print(&format!("{printed}\n"))?;
    Ok(Exit::Expected)
}

fn remove(shelf: &Shelf, arguments: &Remove) -> Result<Exit, Error> {
    let mut globs = vec![];
    for name in &arguments.names {
        let glob = globset::Glob::new(name)
            .map_err(|error| Error::usage(format!("`{name}` is not a glob: {error}"), "such as `disk *`"))?;
        globs.push((name, glob.compile_matcher()));
    }
    let rows = rows(shelf)?;
    let mut removed = 0;
    for (name, glob) in &globs {
        if !rows.iter().any(|row| glob.is_match(&row.name)) {
            return Err(Error::usage(format!("nothing is kept as `{name}`"), "`abicus vm list` shows what is kept"));
        }
    }
    for row in rows {
        if arguments.all || globs.iter().any(|(_, glob)| glob.is_match(&row.name)) {
            shelf.remove(&row.id)?;
            removed += 1;
            print(&format!("removed {}\n", row.name))?;
        }
    }
    print(&format!("{removed} removed\n"))?;
    Ok(Exit::Expected)
}
