//! Hosts as declared → [`HostSpec`]: one way to reach each, and nothing that `ssh` could take for an option.

use std::ops::Range;

use toml::Spanned;

use super::endpoint::endpoints;
use super::error::Errors;
use super::resolve::{Names, at_least_one, existing};
use super::toml_shape::HostTable;
use super::vm::vm;
use super::{HostKind, HostSpec, SshSpec, World};
use crate::id::HostId;

pub(super) fn host(
    table: Spanned<HostTable>,
    world: &World<'_>,
    names: &mut Names,
    errors: &mut Errors<'_>,
) -> Option<HostSpec> {
    let table = table.into_inner();
    let id: Option<HostId> = names.add("host", &table.name, errors);
    let endpoints = endpoints(&table, world, errors);
    let parallel = at_least_one(table.parallel, errors);
    let mut ways: Vec<(&str, Range<usize>, Option<HostKind>)> = vec![];
    let config = table.ssh_config.as_ref().map(|config| existing(config, world, errors));
    if let Some(destination) = &table.ssh {
        if let Err(why) = ssh_destination(destination.get_ref()) {
            let help = "write `user@host`, a name of ~/.ssh/config, or `ssh://user@host:port`";
            errors.add(destination.span(), why, Some(help.into()));
        }
        let spec = SshSpec { destination: destination.get_ref().clone(), config };
        ways.push(("ssh", destination.span(), Some(HostKind::Ssh(spec))));
    } else if let Some(config) = &table.ssh_config {
        errors.add(config.span(), "`ssh_config` is for hosts with `ssh`, and there is none", None);
    }
    ways.extend(endpoints.into_iter().map(|(key, span, endpoint)| (key, span, endpoint.map(HostKind::Endpoint))));
    if let Some(table) = table.vm {
        ways.push(("vm", table.span(), vm(table, world, errors).map(|vm| HostKind::Vm(Box::new(vm)))));
    }
    if ways.len() > 1 {
        let message = format!("host `{}` has both `{}` and `{}`", table.name.get_ref(), ways[0].0, ways[1].0);
        errors.add(ways[1].1.clone(), message, Some("a host is reached in one way".into()));
    }
    let kind = ways.into_iter().next().map_or(Some(HostKind::Local), |(_, _, kind)| kind);
    Some(HostSpec { id: id?, kind: kind?, labels: table.labels, parallel })
}

/// Why a text is no destination: nothing in it may look like an option, or like more than one word.
pub(super) fn ssh_destination(text: &str) -> Result<(), String> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "'\"\\$`;|&<>(){}*?".contains(c);
    if text.is_empty() || text.len() > 512 || text.starts_with('-') || text.contains("@-") || text.contains(odd) {
        return Err(format!("`{text}` is not a destination of ssh"));
    }
    Ok(())
}
