//! The INI of inventories: `[group]`, `[group:children]`, `[group:vars]`, and hosts with variables behind them.

use super::{Inventory, Vars, words};

enum Section {
    Hosts(String),
    Children(String),
    Vars(String),
}

/// The inventory, or a line and what is wrong there.
pub(super) fn read(text: &str) -> Result<Inventory, (usize, String)> {
    let mut inventory = Inventory::default();
    let mut section = Section::Hosts("ungrouped".to_owned());
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let wrong = |why: String| (number, why);
        if let Some(rest) = line.strip_prefix('[') {
            let head = rest.split_once(']').map(|(head, _)| head.trim()).filter(|head| !head.is_empty());
            let head = head.ok_or_else(|| wrong(format!("`{line}` is not the head of a group")))?;
            section = match head.split_once(':') {
                None => Section::Hosts(head.to_owned()),
                Some((group, "children")) => Section::Children(group.to_owned()),
                Some((group, "vars")) => Section::Vars(group.to_owned()),
                Some((_, other)) => {
                    return Err(wrong(format!("a group has `:children` and `:vars`, and no `:{other}`")));
                }
            };
            continue;
        }
        match &section {
            Section::Hosts(group) => {
                let words = words(line);
                let Some((host, rest)) = words.split_first() else { continue };
                let pair = |word: &String| match word.split_once('=') {
                    Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
                    None => Err(wrong(format!("`{word}` is not `variable=value`"))),
                };
                let vars = rest.iter().map(pair).collect::<Result<Vars, _>>()?;
                inventory.group(group);
                inventory.host(host, number, group, &vars).map_err(wrong)?;
            }
            Section::Children(group) => {
                let child = line.split('#').next().unwrap_or(line).trim();
                inventory.group(group);
                inventory.group(child).parents.insert(group.clone());
            }
            Section::Vars(group) => {
                let (key, value) =
                    line.split_once('=').ok_or_else(|| wrong(format!("`{line}` is not `variable=value`")))?;
                let value = words(value).join(" ");
                inventory.group(group).vars.insert(key.trim().to_owned(), value);
            }
        }
    }
    Ok(inventory)
}
