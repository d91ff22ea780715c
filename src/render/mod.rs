//! A run → files for people and for machines. In: a [`Run`], the catalogue, the time. Out: names and bytes of the files of
//! `reports/<run>/`. Pure: no clock, no network, no file, no engine. What hosts, engines, images and probes wrote is hostile
//! here: it reaches a page, a table or a sheet only through the escaping of that format.

mod csv;
mod explanation;
mod findings;
mod html;
mod inquiry;
mod json;
mod junit;
mod markdown;
mod order;
mod outage;
mod page;
mod table;
mod text;
mod vectors;
mod view;
mod waived;

use jiff::Timestamp;

pub use explanation::{CheckExplained, Elsewhere, Explanation, explain};
pub use findings::{Axis, Finding, Kind};
pub use inquiry::{Fails, Inquiry};
pub use json::json;
pub use outage::{NotRun, not_run};
pub use text::printable;
pub use vectors::{Seen, Vector};
pub use view::{Cell, View};
pub use waived::WaiverUse;

use crate::catalog::Catalogue;
use crate::store::Run;

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The page's template and its data do not fit.
    #[error("index.html: {0}")]
    Template(#[from] minijinja::Error),
    /// Something could not be written as JSON.
    #[error("json: {0}")]
    Json(#[from] serde_json::Error),
    /// Something could not be written as CSV.
    #[error("csv: {0}")]
    Csv(#[from] ::csv::Error),
    /// Compressing failed.
    #[error("index.html: compressing its data: {0}")]
    Compress(#[from] std::io::Error),
}

/// The rendered files of a run: name and content.
pub type Files = Vec<(&'static str, Vec<u8>)>;

/// Renders every file of a run directory that is made from its facts.
pub fn render_all(run: &Run, catalogue: &Catalogue, rendered_at: Timestamp) -> Result<Files, RenderError> {
    render_view(&View::new(run, catalogue, rendered_at))
}

/// What the page is made from: the template's data and what is embedded for the script. Tests compare this, not markup.
pub fn page_data(view: &View<'_>) -> Result<serde_json::Value, RenderError> {
    Ok(serde_json::json!({ "page": serde_json::to_value(html::page(view))?, "data": page::data(view) }))
}

/// The columns of `cells.csv`, `results.csv` and `matrix.csv` (there: before the checks), in their order.
pub fn csv_columns() -> [(&'static str, Vec<&'static str>); 3] {
    let facts = csv::FACT_COLUMNS.iter().map(|(_, column, _)| *column);
    [
        ("cells.csv", csv::CELL_COLUMNS.into_iter().chain(facts).collect()),
        ("results.csv", csv::RESULT_COLUMNS.to_vec()),
        ("matrix.csv", csv::MATRIX_COLUMNS.to_vec()),
    ]
}

/// The same for a view that is there already, with what judgement found put into [`View::findings`].
pub fn render_view(view: &View<'_>) -> Result<Files, RenderError> {
    Ok(vec![
        ("index.html", html::html(view)?.into_bytes()),
        ("cells.csv", csv::cells(view)?),
        ("results.csv", csv::results(view)?),
        ("matrix.csv", csv::matrix(view)?),
        ("junit.xml", junit::junit(view).into_bytes()),
        ("summary.md", markdown::markdown(view).into_bytes()),
    ])
}
