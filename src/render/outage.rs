//! Cells that did not run, or not to their end: an outage of the rig is one thing to fix however many cells it costs.

use std::collections::BTreeMap;

use super::view::{Cell, View};
use crate::judge::Verdict;
use crate::judge::known::{self, Match};

/// Cells that did not run, or not to their end, for one reason. Where it is told with other names or numbers for some of
/// them, `…` stands for these.
#[derive(Debug)]
pub struct NotRun<'v, 'a> {
    /// Skip, miss or error.
    pub verdict: Verdict,
    /// Why; hostile text.
    pub reason: String,
    /// What to do; hostile text.
    pub hint: Option<String>,
    /// Which.
    pub cells: Vec<&'v Cell<'a>>,
    /// The reason without what tells one cell from another.
    plain: String,
}

impl NotRun<'_, '_> {
    /// Whether the rig is to blame, and not the user's own wish.
    pub fn is_outage(&self) -> bool {
        match self.verdict {
            Verdict::Error | Verdict::Miss => true,
            Verdict::Skip | Verdict::Pass | Verdict::Degraded | Verdict::Fail => false,
        }
    }

    /// The same in every run with the same trouble.
    pub fn id(&self) -> String {
        format!("o-{}", &blake3::hash(self.plain.as_bytes()).to_hex()[..8])
    }

    /// Documented incompatibilities that show like this.
    pub fn known(&self) -> Vec<Match> {
        known::matching_fault(&self.reason)
    }
}

/// By reason, what concerns most cells first.
pub fn not_run<'v, 'a>(view: &'v View<'a>) -> Vec<NotRun<'v, 'a>> {
    let mut reasons: BTreeMap<(Verdict, String), NotRun<'v, 'a>> = BTreeMap::new();
    let mut put = |verdict: Verdict, reason: String, hint: Option<&'v str>, cell: &'v Cell<'a>| {
        let names = names(&reason, cell);
        let plain = plain(&reason, &names);
        let not_run = reasons.entry((verdict, plain.clone())).or_insert_with(|| NotRun {
            verdict,
            reason: reason.clone(),
            hint: hint.map(str::to_owned),
            cells: vec![],
            plain,
        });
        if not_run.reason != reason {
            not_run.reason.clone_from(&not_run.plain);
        }
        if not_run.hint.as_deref() != hint {
            not_run.hint = hint.map(|hint| plain_words(hint, &names));
        }
        if not_run.cells.last().is_none_or(|last| last.id != cell.id) {
            not_run.cells.push(cell);
        }
    };
    for cell in &view.cells {
        if let Some(reason) = cell.skipped {
            put(Verdict::Skip, reason.to_owned(), None, cell);
        } else if cell.verdict == Verdict::Miss && cell.faults.is_empty() {
            let reason = match cell.vector {
                Some(_) if cell.counts.miss > 0 => "it ended without reporting checks that it planned",
                Some(_) => "it ran and reported nothing that could be judged",
                None => "it was planned and nothing is recorded of it",
            };
            put(Verdict::Miss, reason.to_owned(), None, cell);
        }
        for fault in cell.faults {
            put(Verdict::Error, fault.to_string(), fault.hint.as_deref(), cell);
        }
    }
    let mut all: Vec<_> = reasons.into_values().collect();
    all.sort_by_key(|not_run| std::cmp::Reverse((not_run.verdict, not_run.cells.len())));
    all
}

/// What the reason may call the host of the cell: its name, and how it is reached, which faults of hosts begin with.
fn names<'t>(reason: &'t str, cell: &'t Cell<'_>) -> Vec<&'t str> {
    let mut names = vec![cell.id.host.as_str()];
    let reached = reason.strip_prefix("host: ").and_then(|rest| rest.split_once(": ")).map(|(name, _)| name);
    if let Some(name) = reached.filter(|name| !name.contains(' ')) {
        names.extend([name, name.rsplit_once('@').map_or(name, |(_, host)| host)]);
    }
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    names
}

/// A reason without what tells one cell from another: the host's names, numbers, and the end of a console.
fn plain(reason: &str, names: &[&str]) -> String {
    const CONSOLE: &str = "console ends with:";
    match reason.split_once(CONSOLE) {
        Some((before, _)) => format!("{}{CONSOLE} …", plain_words(before, names)),
        None => plain_words(reason, names),
    }
}

/// Words that say how something ended: their number is the reason.
const TELLING: [&str; 5] = ["status", "signal", "errno", "code", "error"];

fn plain_words(text: &str, names: &[&str]) -> String {
    let mut text = text.to_owned();
    for name in names.iter().filter(|name| text.contains(**name)).collect::<Vec<_>>() {
        text = without_name(&text, name);
    }
    let mut out = String::with_capacity(text.len());
    let mut before = "";
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let number = !bare.is_empty() && bare.chars().all(|c| c.is_ascii_digit());
        let id = bare.len() >= 12 && bare.chars().all(|c| c.is_ascii_hexdigit());
        if id || number && !TELLING.contains(&before) {
            out.push('…');
            out.push_str(&word[bare.len()..]);
        } else {
            out.push_str(word);
        }
        if !bare.is_empty() {
            before = bare;
        }
    }
    out
}

/// The text with `…` for a name, where it stands as a word of its own.
fn without_name(text: &str, name: &str) -> String {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find(name) {
        let (before, after) = (&rest[..at], &rest[at + name.len()..]);
        let whole = !part(before.chars().next_back()) && !part(after.chars().next());
        out.push_str(before);
        out.push_str(if whole { "…" } else { name });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_one_cell_from_another_makes_no_reason_of_its_own() {
        let told = |id: &str| plain(&format!("preparing container {id} for attach: crun: cgroups"), &[]);
        assert_eq!(told("213009b62daa4d3ab78778969210c1a0"), told("89f35dcc8d3b71030c3e1b95756b74f4"));
        assert_eq!(told("213009b62daa4d3ab78778969210c1a0"), "preparing container … for attach: crun: cgroups");
        // How many checks arrived before the cut is no cause; how a program ended is.
        assert_eq!(plain("cut off: 12 of 34 checks arrived", &[]), "cut off: … of … checks arrived");
        assert_eq!(plain("no space left: /dev/sda1", &[]), "no space left: /dev/sda1");
        assert_eq!(plain("exited with status 3, errno 28", &[]), "exited with status 3, errno 28");
        let panic = "host: the kernel panicked: no root; the console ends with: [ 1.2] end trace";
        assert_eq!(plain(panic, &["vm-1"]), "host: the kernel panicked: no root; the console ends with: …");
        assert_eq!(plain("the connection to rack-1 is lost", &["rack-1"]), "the connection to … is lost");
        assert_eq!(plain("the connection to rack-1b is lost", &["rack-1"]), "the connection to rack-1b is lost");
    }
}
