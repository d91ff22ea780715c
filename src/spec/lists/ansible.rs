//! An Ansible inventory → its hosts, with what of their variables says how `ssh` gets there, and their groups as labels.
//! <https://docs.ansible.com/ansible/latest/inventory_guide/intro_inventory.html>
//!
//! Variables count where the inventory itself has them; `group_vars` and `host_vars` beside it are not read.

mod ini;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};

use super::{Files, Found, GROUP};

/// Most hosts one inventory may have.
const MOST: usize = 100_000;

type Vars = BTreeMap<String, String>;

/// What an inventory says, before groups are applied to hosts.
#[derive(Default)]
struct Inventory {
    /// In order of first mention.
    hosts: Vec<String>,
    about: BTreeMap<String, Host>,
    groups: BTreeMap<String, Group>,
}

#[derive(Default)]
struct Host {
    line: usize,
    vars: Vars,
    groups: BTreeSet<String>,
}

#[derive(Default)]
struct Group {
    vars: Vars,
    parents: BTreeSet<String>,
}

impl Inventory {
    /// A host, or a range of them, in a group.
    fn host(&mut self, name: &str, line: usize, group: &str, vars: &Vars) -> Result<(), String> {
        for name in ranged(name)? {
            let (name, port) = with_port(&name);
            if !self.about.contains_key(&name) {
                self.hosts.push(name.clone());
                self.about.insert(name.clone(), Host { line, ..Host::default() });
            }
            if self.hosts.len() > MOST {
                return Err(format!("more than {MOST} hosts"));
            }
            let host = self.about.entry(name).or_default();
            host.vars.extend(port.map(|port| ("ansible_port".to_owned(), port)));
            host.vars.extend(vars.clone());
            host.groups.insert(group.to_owned());
        }
        Ok(())
    }

    fn group(&mut self, name: &str) -> &mut Group {
        self.groups.entry(name.to_owned()).or_default()
    }

    /// The groups of a host and theirs, the farthest first: those nearer say more.
    fn all_groups<'a>(&'a self, host: &'a Host) -> Vec<&'a str> {
        let mut distance: BTreeMap<&str, usize> = BTreeMap::new();
        let mut next: Vec<(&str, usize)> = host.groups.iter().map(|group| (group.as_str(), 1)).collect();
        while let Some((group, far)) = next.pop() {
            // A circle ends where it comes to a group that is as far already.
            if far > self.groups.len() + 1 || distance.get(group).is_some_and(|known| *known >= far) {
                continue;
            }
            distance.insert(group, far);
            let parents = self.groups.get(group).map(|group| &group.parents);
            next.extend(parents.into_iter().flatten().map(|parent| (parent.as_str(), far + 1)));
        }
        let mut groups: Vec<_> = distance.into_iter().filter(|(group, _)| *group != "all").collect();
        groups.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        std::iter::once("all").chain(groups.into_iter().map(|(group, _)| group)).collect()
    }
}

/// The hosts of an inventory, YAML by the end of its name, else INI.
pub(super) fn hosts(path: &str, files: &Files<'_>) -> Result<Vec<Found>, String> {
    let file = files.path(path);
    let name = files.shown(&file);
    let text = (files.read)(&file).map_err(|error| format!("{name}: {error}"))?;
    let is_yaml = file.extension().is_some_and(|end| ["yml", "yaml", "json"].iter().any(|yaml| end == *yaml));
    let inventory = if is_yaml { yaml::read(&text) } else { ini::read(&text) };
    let inventory = inventory.map_err(|(line, why)| format!("{name}:{line}: {why}"))?;
    inventory
        .hosts
        .iter()
        .filter_map(|host| Some((host, inventory.about.get(host)?)))
        .map(|(host, about)| {
            found(&inventory, host, about, &name).map_err(|why| format!("{name}:{}: host `{host}`: {why}", about.line))
        })
        .collect()
}

fn found(inventory: &Inventory, name: &str, host: &Host, file: &str) -> Result<Found, String> {
    let groups = inventory.all_groups(host);
    let mut vars = Vars::new();
    for group in &groups {
        vars.extend(inventory.groups.get(*group).map(|group| group.vars.clone()).unwrap_or_default());
    }
    vars.extend(host.vars.clone());
    let labels = groups
        .iter()
        .filter(|group| !matches!(**group, "all" | "ungrouped"))
        .map(|group| (format!("{GROUP}{group}"), "yes".to_owned()));
    let ssh = match vars.get("ansible_connection").map(String::as_str) {
        None | Some("ssh" | "smart" | "paramiko") => Some(destination(name, &vars)?),
        Some("local") => None,
        Some(other) => {
            return Err(format!("it is reached by `{other}`, which abicus does not speak; leave it out by `pattern`"));
        }
    };
    Ok(Found {
        name: name.to_owned(),
        ssh,
        ssh_config: None,
        labels: labels.collect(),
        file: file.to_owned(),
        line: host.line,
    })
}

/// What `ssh` takes: no more than the inventory says, so that the user's own configuration says the rest.
fn destination(name: &str, vars: &Vars) -> Result<String, String> {
    let var = |key: &str| {
        let value = vars.get(&format!("ansible_{key}")).or_else(|| vars.get(&format!("ansible_ssh_{key}")));
        match value.filter(|value| !value.is_empty()) {
            Some(value) if value.contains("{{") => {
                Err(format!("`{value}` is a template, which abicus does not fill in"))
            }
            value => Ok(value),
        }
    };
    let host = var("host")?.map_or(name, String::as_str);
    let user = var("user")?.map(|user| format!("{user}@")).unwrap_or_default();
    Ok(match var("port")? {
        Some(port) if host.contains(':') => format!("ssh://{user}[{host}]:{port}"),
        Some(port) => format!("ssh://{user}{host}:{port}"),
        None => format!("{user}{host}"),
    })
}

/// `host:2222` of the older way to write it; an address with more colons is one.
fn with_port(name: &str) -> (String, Option<String>) {
    match name.split_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            (host.to_owned(), Some(port.to_owned()))
        }
        _ => (name.to_owned(), None),
    }
}

/// `web[01:50].example` → each of them; also `[a:f]`, steps (`[0:10:2]`) and several in one name.
fn ranged(name: &str) -> Result<Vec<String>, String> {
    let Some((before, range, after)) = name
        .split_once('[')
        .and_then(|(before, rest)| rest.split_once(']').map(|(range, after)| (before, range, after)))
        .filter(|(_, range, _)| range.contains(':'))
    else {
        return Ok(vec![name.to_owned()]);
    };
    let wrong = || format!("`[{range}]` of `{name}` is not a range: write `[01:50]` or `[a:f]`");
    let mut parts = range.split(':');
    let (Some(from), Some(to), step, None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(wrong());
    };
    let step: usize = step.map_or(Ok(1), str::parse).ok().filter(|step| *step > 0).ok_or_else(wrong)?;
    let letter = |text: &str| text.chars().next().filter(|c| text.len() == 1 && c.is_ascii_alphabetic());
    let middles: Vec<String> = match (letter(from), letter(to), from.parse::<u32>(), to.parse::<u32>()) {
        (Some(from), Some(to), ..) if from <= to => (from..=to).step_by(step).map(String::from).collect(),
        (None, None, Ok(first), Ok(last)) if first <= last && (last - first) as usize <= MOST => {
            // A leading zero says how wide they all are.
            let width = if from.starts_with('0') { from.len() } else { 0 };
            (first..=last).step_by(step).map(|n| format!("{n:0width$}")).collect()
        }
        _ => return Err(wrong()),
    };
    let rest = ranged(after)?;
    if middles.len().saturating_mul(rest.len()) > MOST {
        return Err(format!("`{name}` is more than {MOST} hosts"));
    }
    Ok(middles.iter().flat_map(|middle| rest.iter().map(move |rest| format!("{before}{middle}{rest}"))).collect())
}

/// Words as a shell would split them, as far as inventories and ssh's configuration go: quotes, and comments to the end.
pub(super) fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut begun) = (vec![], String::new(), None, false);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => (quote, begun) = (Some(c), true),
            (None, '#') if !begun => break,
            (None, _) if c.is_whitespace() => {
                if std::mem::take(&mut begun) {
                    words.push(std::mem::take(&mut word));
                }
            }
            _ => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}
