//! Questions about a judged run: who has to fix this failure of this cell, what inside that layer is at fault, what was seen
//! around it. Findings ask it for groups of failures, `abicus explain` for one.

use super::view::{Cell, View};
use crate::engine::Facts;
use crate::id::CheckId;
use crate::judge::cause::{Blame, Causes, Subject};
use crate::judge::known::{self, Match};
use crate::judge::mechanism::{Case, Mechanism, mechanism};
use crate::judge::scene::Scene;
use crate::store::Known;

/// A view, ready to be asked. Cells are indexes into [`View::cells`], checks into [`View::checks`].
#[derive(Debug)]
pub struct Inquiry<'v, 'a> {
    view: &'v View<'a>,
    /// The cells with what they have in common.
    pub causes: Causes<'v>,
}

/// Whether a check fails in each cell; none where it was not asked.
pub type Fails = Vec<Option<bool>>;

impl<'v, 'a> Inquiry<'v, 'a> {
    /// Learns what the cells have in common.
    pub fn new(view: &'v View<'a>) -> Self {
        let facts = |known: Option<&'v Known>| known.map(|known| &known.facts);
        let subjects = view.cells.iter().map(|cell| Subject {
            cell: cell.id,
            role: cell.role,
            host: facts(view.host(&cell.id.host)),
            engine: facts(view.engine(&cell.id.host, &cell.id.engine)),
            image: facts(view.image(&cell.id.image)),
        });
        Self { view, causes: Causes::new(subjects.collect(), view.run.info.controls.as_ref()) }
    }

    /// Where a check fails.
    pub fn fails(&self, check: usize) -> Fails {
        let by_vector: Vec<Option<bool>> =
            (0..self.view.vectors.len()).map(|vector| self.view.answer(vector, check)?.verdict()).collect();
        self.view.cells.iter().map(|cell| by_vector[cell.vector?]).collect()
    }

    /// Who has to fix the failure of a cell.
    pub fn blame(&self, cell: usize, fails: &Fails) -> Blame {
        self.causes.blame(cell, fails)
    }

    /// What is known of a cell.
    pub fn scene(&self, cell: usize) -> Scene<'v> {
        let view = self.view;
        let cell: &Cell<'_> = &view.cells[cell];
        let facts = |known: Option<&'v Known>| -> Option<&'v Facts> { known.map(|known| &known.facts) };
        Scene {
            observations: cell.digest.and_then(|digest| view.run.vectors.get(digest)).map(|all| &**all),
            host: facts(view.host(&cell.id.host)),
            engine: facts(view.engine(&cell.id.host, &cell.id.engine)),
            image: facts(view.image(&cell.id.image)),
            cell: cell.facts,
        }
    }

    /// What inside the layers that are left is at fault.
    pub fn mechanism(&self, cell: usize, check: &CheckId, blame: &Blame, fails: &Fails) -> Option<Mechanism> {
        let places = self.causes.places(cell);
        let scene = |at: Option<usize>| at.filter(|&at| at != cell).map(|at| self.scene(at));
        mechanism(&Case {
            catalogue: &self.view.catalogue,
            check,
            here: self.scene(cell),
            controls: blame.controls,
            native: scene(places.native),
            scratch: scene(places.scratch),
            no_policy: scene(places.no_policy),
            other: scene(self.causes.neighbour(cell, fails)),
            layers: &blame.layers,
        })
    }

    /// Documented incompatibilities that explain failing checks of a cell.
    pub fn known<'c>(
        &self,
        cell: usize,
        checks: impl Iterator<Item = &'c CheckId> + Clone,
        blame: &Blame,
    ) -> Vec<Match> {
        known::matching(&self.scene(cell), checks, &blame.layers)
    }
}
