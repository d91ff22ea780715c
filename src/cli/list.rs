//! `abicus list`: the runs that are kept.

use clap::Args;
use serde::Serialize;

use super::{Error, Exit, Format, ReportsArgument, print, print_json, table};
use crate::store;

/// List the runs that are kept, oldest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  abicus list\n  abicus list --format json | jq -r '.[-1].run'")]
pub(super) struct Arguments {
    #[command(flatten)]
    reports: ReportsArgument,
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Serialize)]
struct Row {
    run: String,
    name: String,
    started: String,
    state: String,
    cells: usize,
    directory: String,
}

pub(super) fn run(arguments: Arguments) -> Result<Exit, Error> {
    let rows: Vec<Row> = store::list(&arguments.reports.reports)?
        .into_iter()
        .map(|kept| {
            let directory = kept.dir.display().to_string();
            match kept.info {
                Ok(info) => Row {
                    run: info.id.to_string(),
                    state: info.state().to_owned(),
                    name: info.name,
                    started: info.started.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
                    cells: info.cells.len(),
                    directory,
                },
                Err(error) => Row {
                    run: kept.dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                    name: String::new(),
                    started: String::new(),
                    state: format!("cannot be read: {error}"),
                    cells: 0,
                    directory,
                },
            }
        })
        .collect();
    if arguments.format == Format::Json {
        print_json(&rows)?;
        return Ok(Exit::Expected);
    }
    if rows.is_empty() {
        print(&format!("no runs under {}\n", arguments.reports.reports.display()))?;
        return Ok(Exit::Expected);
    }
    let mut printed = table(&["run", "matrix", "started", "state", "cells"]);
    for row in rows {
        printed.add_row([row.run, row.name, row.started, row.state, row.cells.to_string()]);
    }
    print(&format!("{printed}\n"))?;
    Ok(Exit::Expected)
}
