//! `abicus plan`: the expanded matrix; runs nothing.

use clap::Args;
use serde::Serialize;

use super::{Error, Exit, Format, MatrixArgument, SelectionArguments, print, print_json, table};
use crate::plan::{Planned, Skipped};

/// Print the cells, the control cells and what is left out; runs nothing
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  abicus plan
  abicus plan --cells 'local:docker*:debian-*'
  abicus plan --image 'debian-*' --format json | jq -r '.cells[].cell'")]
pub(super) struct Arguments {
    #[command(flatten)]
    matrix: MatrixArgument,
    #[command(flatten)]
    selection: SelectionArguments,
    /// How to print it
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Serialize)]
struct Printed<'a> {
    cells: &'a [Planned],
    skips: &'a [Skipped],
}

pub(super) fn run(arguments: Arguments) -> Result<Exit, Error> {
    let (matrix, _) = arguments.matrix.read()?;
    let plan = arguments.selection.plan(&matrix)?;
    if arguments.format == Format::Json {
        print_json(&Printed { cells: &plan.cells, skips: &plan.skips })?;
        return Ok(Exit::Expected);
    }
    let mut rows = table(&["cell", "why"]);
    for planned in &plan.cells {
        rows.add_row([planned.cell.to_string(), planned.role.to_string()]);
    }
    for skipped in &plan.skips {
        rows.add_row([skipped.cell.to_string(), format!("skip, {}", skipped.reason)]);
    }
    let (cells, controls) = plan.counts();
    print(&format!("{rows}\n{cells} cells, {controls} control cells, {} left out\n", plan.skips.len()))?;
    Ok(Exit::Expected)
}
