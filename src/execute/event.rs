//! What a run tells while it goes on: for progress bars, plain lines and `--json`.

use std::sync::Arc;

use serde::Serialize;

use crate::fault::Fault;
use crate::id::{CellId, EngineId, HostId, ImageId};
use crate::store::CellRecord;

/// Something happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The run begins.
    Planned {
        /// Cells and controls.
        cells: usize,
        /// Of these, done before (a resumed run).
        done: usize,
    },
    /// An engine was looked at.
    Engine {
        /// On this host.
        host: HostId,
        /// This engine.
        engine: EngineId,
        /// Why it cannot be used.
        fault: Option<Fault>,
    },
    /// An image is being made ready.
    ImageStep {
        /// This image.
        image: ImageId,
        /// What is being done.
        what: String,
        /// Bytes done.
        done: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
    /// An image is ready, or cannot be had.
    Image {
        /// This image.
        image: ImageId,
        /// Why it cannot be used.
        fault: Option<Fault>,
    },
    /// An engine is being given an image.
    Giving {
        /// The first cell that wants it.
        cell: CellId,
    },
    /// An engine has it, or said why not.
    Given {
        /// The same cell.
        cell: CellId,
        /// How long it took.
        ms: u64,
    },
    /// An attempt begins.
    CellStarted {
        /// This cell.
        cell: CellId,
        /// From 1.
        attempt: u32,
    },
    /// A cell came to something.
    CellDone {
        /// What.
        record: Arc<CellRecord>,
    },
    /// Something a person should know.
    Warning {
        /// What.
        text: String,
    },
    /// The run ended.
    Finished {
        /// Whether it was interrupted.
        interrupted: bool,
    },
}
