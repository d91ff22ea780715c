//! Questions about a judged run: who has to fix this failure of this cell, what inside that layer is at fault, what was seen
//! around it. Findings ask it for groups of failures, `abicus explain` for one.

use super::text::printable;
use super::view::{Cell, View};
use crate::engine::Facts;
use crate::id::{CellId, CheckId, ImageId};
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
        // Cells share hosts, engines and images: each is looked up once.
        let facts = |known: Option<&'v Known>| known.map(|known| &known.facts);
        let hosts: Vec<_> = view.hosts.iter().map(|host| facts(view.host(host))).collect();
        let images: Vec<_> = view.images.iter().map(|image| facts(view.image(image))).collect();
        let on = |host| view.engines.iter().map(move |engine| facts(view.engine(host, engine)));
        let engines: Vec<Vec<_>> = view.hosts.iter().map(|host| on(host).collect()).collect();
        let subjects = view.cells.iter().map(|cell| Subject {
            cell: cell.id,
            role: cell.role,
            ran: cell.vector.is_some(),
            host: hosts[cell.host],
            engine: engines[cell.host][cell.engine],
            image: images[cell.image],
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

    /// Controls that would make a claim firmer, each with why it says nothing of a check.
    pub fn unanswered(&self, cell: usize, check: usize, blame: &Blame) -> Vec<String> {
        let view = self.view;
        let Some(names) = &view.run.info.controls else {
            return match blame.missing.is_empty() {
                true => vec![],
                false => vec!["the run had no control cells".to_owned()],
            };
        };
        let places = self.causes.places(cell);
        let id = view.cells[cell].id;
        let why = |at: usize| {
            let control = &view.cells[at];
            let seen = control.vector.map(|vector| view.answer(vector, check));
            match (seen, control.skipped, control.faults.first()) {
                (Some(Some(seen)), _, _) if seen.outcome == "skip" => format!("was not asked: {}", seen.reason),
                (Some(Some(seen)), _, _) => format!("came to {}: {}", seen.outcome, seen.reason),
                (Some(None), _, Some(fault)) => format!("broke before it was asked: {fault}"),
                (Some(None), _, None) => "was not asked this".to_owned(),
                (None, Some(reason), _) => format!("did not run: {reason}"),
                (None, None, Some(fault)) => format!("did not run: {fault}"),
                (None, None, None) => "did not run".to_owned(),
            }
        };
        let told = |&name: &&'static str| {
            let (place, engine, image) = match name {
                "native" => (places.native, &names.native, &ImageId::none()),
                "scratch image" => (places.scratch, &id.engine, &names.scratch),
                _ => (places.no_policy, &names.no_policy, &id.image),
            };
            let wanted = CellId { host: id.host.clone(), engine: engine.clone(), image: image.clone() };
            let at = place.or_else(|| view.cells.iter().position(|known| *known.id == wanted));
            let (which, why) = match at {
                Some(at) => (view.cells[at].id, why(at)),
                None => (&wanted, "was not planned: the matrix leaves it out, or the host cannot have it".to_owned()),
            };
            format!("control {name} ({which}) {}", printable(&why, 200))
        };
        blame.missing.iter().map(told).collect()
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

    /// Documented incompatibilities that a cell has although no check fails by them.
    pub fn recorded(&self, cell: usize) -> Vec<Match> {
        let Some(vector) = self.view.cells[cell].vector else { return vec![] };
        let results = self.view.vectors[vector].results.iter();
        let passing = results.filter(|(_, seen)| !self.view.seen[*seen as usize].is_fail());
        known::recorded(&self.scene(cell), passing.map(|(check, _)| &self.view.checks[*check as usize]))
    }
}
