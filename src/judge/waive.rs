//! Waivers against what happened. In: waivers, which results each covers, the day. Out: whether each is still good: one that
//! ran out, that nothing needs, or whose failure is gone is a failure itself. Pure; the day is told.

use jiff::civil::Date;
use serde::Serialize;

/// How a waiver fares in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It holds and something fails as it expects.
    Used,
    /// Its day is over: it changes nothing any more.
    Expired,
    /// It holds for some of its checks, and what others expect to fail passes.
    Partly,
    /// Its cells ran and none was asked any of its checks, or it has no cell.
    Unused,
    /// What it expects to fail passes.
    Passing,
    /// Its cells did not run, or were not selected: nothing is known.
    Untried,
}

impl Fate {
    /// Whether the run cannot be green with it.
    pub fn is_trouble(self) -> bool {
        match self {
            Self::Expired | Self::Unused | Self::Passing | Self::Partly => true,
            Self::Used | Self::Untried => false,
        }
    }

    /// What to tell, and what to do.
    pub fn words(self) -> &'static str {
        match self {
            Self::Used => "holds",
            Self::Partly => "is not needed any more for some of its checks, which pass everywhere: take them out",
            Self::Expired => "has expired: fix the failure, or renew `until`",
            Self::Unused => "is not used: nothing it covers is asked; remove it",
            Self::Passing => "is not needed any more: what it expects to fail passes; remove it",
            Self::Untried => "was not tried: its cells did not run",
        }
    }
}

/// What the results that a waiver covers come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Cells it covers that were asked for.
    pub cells: usize,
    /// Those of them that delivered something.
    pub ran: usize,
    /// Results that fail.
    pub failing: usize,
    /// Results that pass.
    pub passing: usize,
    /// Patterns over checks of which nothing fails and something passes.
    pub idle: usize,
}

/// How a waiver fares. `selected` says that the run was told to leave cells of the matrix out.
pub fn fate(until: Date, today: Date, tally: Tally, selected: bool) -> Fate {
    match (until < today, tally) {
        (true, _) => Fate::Expired,
        (false, Tally { failing: 1.., idle: 0, .. }) => Fate::Used,
        (false, Tally { failing: 1.., idle: 1.., .. }) => Fate::Partly,
        (false, Tally { failing: 0, passing: 1.., .. }) => Fate::Passing,
        (false, Tally { failing: 0, passing: 0, ran: 1.., .. }) => Fate::Unused,
        (false, Tally { failing: 0, passing: 0, ran: 0, cells: 1.., .. }) => Fate::Untried,
        (false, Tally { failing: 0, passing: 0, ran: 0, cells: 0, .. }) if selected => Fate::Untried,
        (false, Tally { failing: 0, passing: 0, ran: 0, cells: 0, .. }) => Fate::Unused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_truth_table_of_waivers() {
        let (before, day, after) = ("2027-06-29", "2027-06-30", "2027-07-01");
        let date = |text: &str| text.parse::<Date>().unwrap();
        let tally = |cells, ran, failing, passing| Tally { cells, ran, failing, passing, idle: 0 };
        for today in [before, day] {
            let fate = |tally, selected| fate(date(day), date(today), tally, selected);
            for selected in [false, true] {
                assert_eq!(fate(tally(2, 2, 1, 0), selected), Fate::Used);
                assert_eq!(fate(tally(2, 2, 1, 1), selected), Fate::Used, "one of two cells passes");
                assert_eq!(
                    fate(Tally { idle: 1, ..tally(2, 2, 1, 9) }, selected),
                    Fate::Partly,
                    "one check of two passes"
                );
                assert_eq!(fate(tally(2, 2, 0, 2), selected), Fate::Passing);
                assert_eq!(fate(Tally { idle: 2, ..tally(2, 2, 0, 2) }, selected), Fate::Passing);
                assert_eq!(fate(tally(2, 1, 0, 0), selected), Fate::Unused);
                assert_eq!(fate(tally(2, 0, 0, 0), selected), Fate::Untried);
            }
            assert_eq!(fate(tally(0, 0, 0, 0), false), Fate::Unused);
            assert_eq!(fate(tally(0, 0, 0, 0), true), Fate::Untried);
        }
        for tally in [tally(2, 2, 1, 0), tally(2, 2, 0, 1), tally(0, 0, 0, 0)] {
            assert_eq!(fate(date(day), date(after), tally, false), Fate::Expired);
        }
    }
}
