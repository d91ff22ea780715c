//! Controls that say the same on every host of a class: the first host to get there runs one, the others need not. Which hosts
//! are of a class is known only once they were looked at, so this cannot be planned.
//!
//! In: a control without policy, facts of its host and engine. Out: its turn, or that it ran elsewhere. Where it came to nothing,
//! the next host has its turn.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use super::Shared;
use crate::engine::Facts;
use crate::host::class;
use crate::id::{CellId, HostId, ImageId};
use crate::plan::{Planned, Role};
use crate::spec::HostKind;
use crate::store::State;

/// Class of the host, facts of the engine there, image.
type Key = (String, Facts, ImageId);

/// A control of a class: who is at it, and who has done it.
#[derive(Default)]
struct Control {
    at: Mutex<Option<HostId>>,
    done: Arc<tokio::sync::Mutex<Option<HostId>>>,
}

/// The controls of a run that were asked for.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<Key, Arc<Control>>>);

/// The right to run a control for all hosts of a class.
pub(super) struct Turn(OwnedMutexGuard<Option<HostId>>);

impl Turn {
    /// What the control came to; dropped without a word, it came to nothing.
    pub(super) fn end(mut self, host: &HostId, state: &State) {
        if let State::Ran { .. } = state {
            *self.0 = Some(host.clone());
        }
    }
}

impl Turns {
    /// Where these controls were run before, with facts of host and engine.
    pub(super) fn after(done: &[(CellId, Facts, Facts)]) -> Self {
        let ran = |(cell, host, engine): &(CellId, Facts, Facts)| {
            let done = Arc::new(tokio::sync::Mutex::new(Some(cell.host.clone())));
            let control = Arc::new(Control { at: Mutex::new(Some(cell.host.clone())), done });
            (key(host, engine, &cell.image), control)
        };
        Self(Mutex::new(done.iter().map(ran).collect()))
    }

    /// The turn of a host; an error names the host that did it or, for who does not wait, is at it.
    async fn take(&self, key: Key, host: &HostId, waits: bool) -> Result<Turn, Option<HostId>> {
        let control = self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
        let at = || control.at.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = match control.done.clone().try_lock_owned() {
            Ok(turn) => turn,
            Err(_) if waits => control.done.clone().lock_owned().await,
            Err(_) => return Err(at().clone()),
        };
        if let Some(other) = &*turn {
            return Err(Some(other.clone()));
        }
        *at() = Some(host.clone());
        Ok(Turn(turn))
    }
}

fn key(host: &Facts, engine: &Facts, image: &ImageId) -> Key {
    (class(host), engine.clone(), image.clone())
}

/// Waits for the turn of a cell; none where it needs no turn, a skip where another host of its class did it.
pub(super) async fn turn(
    shared: &Shared,
    planned: &Planned,
    host: &Facts,
    engine: &Facts,
) -> Result<Option<Turn>, State> {
    if planned.role != Role::ControlNoPolicy {
        return Ok(None);
    }
    let cell = &planned.cell;
    let key = key(host, engine, &cell.image);
    // A virtual machine that waits takes the room of one that works.
    let waits = !shared.rig.hosts.get(&cell.host).is_some_and(|(spec, _)| matches!(spec.kind, HostKind::Vm(_)));
    shared.turns.take(key, &cell.host, waits).await.map(Some).map_err(|other| {
        let other = other.map_or_else(|| "another".to_owned(), |other| other.to_string());
        State::Skipped { reason: format!("hosts of a class share this control: it ran on {other}") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, Phase};

    fn host(release: &str) -> Facts {
        Facts::from([("kernel.release".to_owned(), release.to_owned())])
    }

    fn key(release: &str) -> Key {
        super::key(&host(release), &Facts::new(), &"image".parse().unwrap())
    }

    fn ran() -> State {
        State::Ran { vector: String::new(), probes: vec![], facts: Facts::new(), faults: vec![] }
    }

    #[tokio::test]
    async fn one_host_of_a_class_runs_a_control_and_the_next_where_it_broke() {
        let turns = Turns::default();
        let [a, b, c] = ["a", "b", "c"].map(|host| host.parse::<HostId>().unwrap());
        let first = turns.take(key("6.1"), &a, true).await.ok().unwrap();
        assert!(turns.take(key("5.10"), &b, false).await.is_ok(), "a host of another class has its own");
        let busy = turns.take(key("6.1"), &b, false).await.err().unwrap();
        assert_eq!(busy, Some(a.clone()), "who does not wait is told who is at it");
        let (broken, next) = tokio::join!(
            async { first.end(&a, &State::Broken { fault: Fault::new(Phase::Start, "x") }) },
            turns.take(key("6.1"), &b, true)
        );
        let ((), next) = (broken, next.ok().unwrap());
        next.end(&b, &ran());
        assert_eq!(turns.take(key("6.1"), &c, true).await.err().unwrap(), Some(b));
    }

    #[tokio::test]
    async fn what_ran_before_the_run_was_resumed_is_not_run_again() {
        let cell: CellId = "a:control.no-policy:image".parse().unwrap();
        let turns = Turns::after(&[(cell, host("6.1"), Facts::new())]);
        let [a, b] = ["a", "b"].map(|host| host.parse::<HostId>().unwrap());
        assert_eq!(turns.take(key("6.1"), &b, true).await.err().unwrap(), Some(a.clone()));
        assert_eq!(turns.take(key("6.1"), &b, false).await.err().unwrap(), Some(a));
        assert!(turns.take(key("5.10"), &b, true).await.is_ok(), "another class");
    }
}
