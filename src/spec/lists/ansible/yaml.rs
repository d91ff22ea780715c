//! The YAML of inventories: groups with `hosts`, `vars` and `children`.

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};

use super::{Inventory, Vars};

/// Deepest nesting of groups read.
const DEPTH: u32 = 64;

type Wrong = (usize, String);

/// The inventory, or a line and what is wrong there.
pub(super) fn read(text: &str) -> Result<Inventory, Wrong> {
    let documents =
        MarkedYaml::load_from_str(text).map_err(|error| (error.marker().line(), error.info().to_owned()))?;
    let mut inventory = Inventory::default();
    for document in &documents {
        for (group, of) in pairs(document, "groups")? {
            read_group(&mut inventory, &group, None, of, 0)?;
        }
    }
    Ok(inventory)
}

fn read_group(
    inventory: &mut Inventory,
    name: &str,
    parent: Option<&str>,
    of: &MarkedYaml<'_>,
    depth: u32,
) -> Result<(), Wrong> {
    if depth > DEPTH {
        return Err((of.span.start.line(), format!("groups are nested deeper than {DEPTH}")));
    }
    inventory.group(name).parents.extend(parent.map(str::to_owned));
    for (key, value) in pairs(of, "`hosts`, `vars` and `children`")? {
        let line = value.span.start.line();
        match key.as_str() {
            "hosts" => {
                for (host, line, about) in lined(value, "hosts")? {
                    let vars = vars(about)?;
                    inventory.host(&host, line, name, &vars).map_err(|why| (line, why))?;
                }
            }
            "vars" => inventory.group(name).vars.extend(vars(value)?),
            "children" => {
                for (child, about) in pairs(value, "groups")? {
                    read_group(inventory, &child, Some(name), about, depth + 1)?;
                }
            }
            other => {
                return Err((line, format!("group `{name}` has `hosts`, `vars` and `children`, and no `{other}`")));
            }
        }
    }
    Ok(())
}

/// Variables that are one word; others say nothing of how a host is reached.
fn vars(of: &MarkedYaml<'_>) -> Result<Vars, Wrong> {
    Ok(pairs(of, "variables")?.into_iter().filter_map(|(key, value)| Some((key, word(value)?))).collect())
}

fn pairs<'y, 'i>(of: &'y MarkedYaml<'i>, what: &str) -> Result<Vec<(String, &'y MarkedYaml<'i>)>, Wrong> {
    Ok(lined(of, what)?.into_iter().map(|(key, _, value)| (key, value)).collect())
}

/// The pairs of a mapping with their lines; nothing is an empty one.
fn lined<'y, 'i>(of: &'y MarkedYaml<'i>, what: &str) -> Result<Vec<(String, usize, &'y MarkedYaml<'i>)>, Wrong> {
    let wrong = || (of.span.start.line().max(1), format!("here should be a mapping of {what}"));
    match &of.data {
        YamlData::Value(Scalar::Null) => Ok(vec![]),
        YamlData::Mapping(mapping) => mapping
            .iter()
            .map(|(key, value)| Ok((word(key).ok_or_else(wrong)?, key.span.start.line(), value)))
            .collect(),
        _ => Err(wrong()),
    }
}

fn word(of: &MarkedYaml<'_>) -> Option<String> {
    match &of.data {
        YamlData::Value(Scalar::String(text)) => Some(text.to_string()),
        YamlData::Value(Scalar::Integer(number)) => Some(number.to_string()),
        YamlData::Value(Scalar::Boolean(truth)) => Some(truth.to_string()),
        YamlData::Value(Scalar::FloatingPoint(number)) => Some(number.to_string()),
        _ => None,
    }
}
