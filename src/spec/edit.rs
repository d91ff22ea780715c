//! A matrix with one more `[[waiver]]`, everything else of the file as it was: comments, order, spaces. In: the text. Out: the
//! new text. Pure.

use jiff::civil::Date;
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

/// A waiver to be written.
#[derive(Debug, Clone)]
pub struct NewWaiver {
    /// A glob over cells.
    pub cells: String,
    /// Globs over checks.
    pub checks: Vec<String>,
    /// Why.
    pub reason: String,
    /// Where it is discussed.
    pub link: Option<String>,
    /// Who looks after it.
    pub owner: Option<String>,
    /// The last day on which it holds.
    pub until: Date,
}

/// Adds a waiver at the end of a matrix.
pub fn add_waiver(text: &str, waiver: &NewWaiver) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
    let waivers = document.entry("waiver").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    let waivers = waivers
        .as_array_of_tables_mut()
        .ok_or("`waiver` is written as one value: write `[[waiver]]` tables, and this can be added")?;
    let mut table = Table::new();
    table["cells"] = value(&waiver.cells);
    let mut checks: Array = waiver.checks.iter().map(String::as_str).collect();
    // A list too long for a line has a line for each.
    if waiver.checks.iter().map(String::len).sum::<usize>() > 80 {
        checks.iter_mut().for_each(|check| check.decor_mut().set_prefix("\n    "));
        checks.set_trailing("\n");
        checks.set_trailing_comma(true);
    }
    table["checks"] = value(checks);
    table["reason"] = value(&waiver.reason);
    for (key, text) in [("link", &waiver.link), ("owner", &waiver.owner)] {
        if let Some(text) = text {
            table[key] = value(text);
        }
    }
    let day: toml_edit::Datetime = waiver.until.to_string().parse().map_err(|error| format!("{error}"))?;
    table["until"] = value(day);
    waivers.push(table);
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiver_is_added_and_everything_else_is_kept() {
        let text = "# top\n[matrix]\nname = \"n\"   # here\n\n[[waiver]]\n# old\ncells = \"a:b:c\"\nchecks = [\"x.y\"]\nreason = \"r\"\nuntil = 2027-01-01\n\n# last\n[[host]]\nname = \"local\"\n";
        let waiver = NewWaiver {
            cells: "local:docker:{a,b}".into(),
            checks: vec!["libc.start".into(), "tool.*".into()],
            reason: "it's \"known\"".into(),
            link: Some("https://example.org/1".into()),
            owner: None,
            until: jiff::civil::date(2027, 6, 30),
        };
        let new = add_waiver(text, &waiver).unwrap();
        for line in text.lines() {
            assert!(new.contains(line), "{line} is gone:\n{new}");
        }
        let terms = super::super::terms(&new, "m.toml").unwrap();
        assert_eq!(terms.waivers.len(), 2);
        assert_eq!(terms.waivers[1].reason, waiver.reason);
        assert_eq!(terms.waivers[1].until, waiver.until);
        assert_eq!(terms.waivers[1].owner, None);

        let long = NewWaiver { checks: (0..12).map(|n| format!("libc.thread.create{n}")).collect(), ..waiver };
        let new = add_waiver("[matrix]\nname = \"n\"\n", &long).unwrap();
        assert!(new.contains("\n    \"libc.thread.create3\",\n"), "{new}");
        assert_eq!(super::super::terms(&new, "m.toml").unwrap().waivers[0].checks.len(), 12);
        assert!(add_waiver("waiver = 3\n", &long).unwrap_err().contains("[[waiver]]"));
    }
}
