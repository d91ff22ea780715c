//! `endpoint`, `tls` and `context` of a host → where an engine is.

use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;

use super::World;
use super::error::Errors;
use super::resolve::existing;
use super::toml_shape::HostTable;
use crate::engine::container::{Endpoint, Tls};

/// Every way of the table that leads to an endpoint: its key, its place, what it means.
pub(super) fn endpoints(
    table: &HostTable,
    world: &World<'_>,
    errors: &mut Errors<'_>,
) -> Vec<(&'static str, Range<usize>, Option<Endpoint>)> {
    let mut ways = vec![];
    let tls = table.tls.as_ref().map(|tls| (tls.span(), certificates(tls, world, errors)));
    if let Some(text) = &table.endpoint {
        ways.push(("endpoint", text.span(), endpoint(text, tls.clone(), world, errors)));
    } else if let Some((span, _)) = tls {
        errors.add(span, "`tls` is for hosts with `endpoint = \"tcp://…\"`, and there is none", None);
    }
    if let Some(name) = &table.context {
        let known = !name.get_ref().is_empty();
        if !known {
            errors.add(name.span(), "a context has a name", Some("`docker context ls` lists them".into()));
        }
        ways.push(("context", name.span(), known.then(|| Endpoint::Context(name.get_ref().clone()))));
    }
    ways
}

fn endpoint(
    text: &Spanned<String>,
    tls: Option<(Range<usize>, Option<Tls>)>,
    world: &World<'_>,
    errors: &mut Errors<'_>,
) -> Option<Endpoint> {
    const RIGHT: &str = "write `unix:///path/of/the.sock` or `tcp://host:port`";
    let url = text.get_ref();
    match url.split_once("://") {
        Some(("unix", path)) if !path.is_empty() => {
            if let Some((span, _)) = tls {
                errors.add(span, "a socket of this machine has no TLS", Some("leave `tls` out".into()));
            }
            Some(Endpoint::Unix(world.base.join(path)))
        }
        Some(("tcp", address)) => {
            let address = address.trim_end_matches('/');
            if !has_port(address) {
                let help = "docker uses 2376 with TLS and 2375 without";
                errors.add(text.span(), format!("`{url}` is not `tcp://host:port`"), Some(help.into()));
                return None;
            }
            let tls = match tls {
                Some((_, tls)) => Some(tls?),
                None => None,
            };
            Some(Endpoint::Tcp { address: address.to_owned(), tls })
        }
        Some(("ssh", destination)) => {
            let help =
                format!("write `ssh = \"{destination}\"`: abicus reaches that host itself, and the engines there");
            errors.add(text.span(), format!("`{url}` is a host to log in at, not an endpoint"), Some(help));
            None
        }
        Some(("https", address)) => {
            let help = format!(
                "write `endpoint = \"tcp://{address}\"` and `tls = \"DIR\"`, where ca.pem, cert.pem and key.pem are"
            );
            errors.add(text.span(), format!("`{url}` does not say which certificates"), Some(help));
            None
        }
        _ => {
            errors.add(text.span(), format!("`{url}` is not an endpoint"), Some(RIGHT.into()));
            None
        }
    }
}

fn has_port(address: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "/?#@".contains(c);
    address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && !host.contains(odd) && port.parse::<u16>().is_ok_and(|n| n > 0))
}

/// A directory with docker's names in it, or three files.
fn certificates(value: &Spanned<toml::Value>, world: &World<'_>, errors: &mut Errors<'_>) -> Option<Tls> {
    let mut file =
        |path: PathBuf| existing(&Spanned::new(value.span(), path.to_string_lossy().into_owned()), world, errors);
    if let Some(dir) = value.get_ref().as_str() {
        let Tls { ca, cert, key } = Tls::in_dir(dir.as_ref());
        return Some(Tls { ca: file(ca), cert: file(cert), key: file(key) });
    }
    let named = value.get_ref().as_table().filter(|table| table.len() == 3);
    let text = |key: &str| Some(PathBuf::from(named?.get(key)?.as_str()?));
    match (text("ca"), text("cert"), text("key")) {
        (Some(ca), Some(cert), Some(key)) => Some(Tls { ca: file(ca), cert: file(cert), key: file(key) }),
        _ => {
            let help =
                "write `tls = \"DIR\"`, where ca.pem, cert.pem and key.pem are, or `{ ca = …, cert = …, key = … }`";
            errors.add(value.span(), "`tls` names no certificates", Some(help.into()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HostKind, resolve};
    use super::*;

    fn host(table: &str) -> Result<HostKind, String> {
        let text = format!(
            "engine = [{{ name = 'd', kind = 'docker' }}]\nimage = [{{ name = 's', scratch = true }}]\n[[host]]\nname = 'h'\n{table}\n"
        );
        let world = World { base: "/base".into(), exists: &|path| !path.ends_with("missing/ca.pem") };
        let matrix = resolve(&text, "m.toml", &world).map_err(|errors| errors.to_string())?;
        Ok(matrix.hosts[0].kind.clone())
    }

    #[test]
    fn a_host_can_be_a_socket_a_port_with_certificates_or_a_context() {
        let tcp = |tls| HostKind::Endpoint(Endpoint::Tcp { address: "rack:2376".to_owned(), tls });
        assert_eq!(
            host("endpoint = 'unix:///run/d.sock'"),
            Ok(HostKind::Endpoint(Endpoint::Unix("/run/d.sock".into())))
        );
        assert_eq!(host("endpoint = 'tcp://rack:2376'"), Ok(tcp(None)));
        assert_eq!(
            host("endpoint = 'tcp://rack:2376/'\ntls = 'certs'"),
            Ok(tcp(Some(Tls::in_dir("/base/certs".as_ref()))))
        );
        let files = Tls { ca: "/base/a".into(), cert: "/base/b".into(), key: "/c".into() };
        assert_eq!(
            host("endpoint = 'tcp://rack:2376'\ntls = { ca = 'a', cert = 'b', key = '/c' }"),
            Ok(tcp(Some(files)))
        );
        assert_eq!(host("context = 'rack'"), Ok(HostKind::Endpoint(Endpoint::Context("rack".to_owned()))));
    }

    #[test]
    fn what_is_no_endpoint_says_what_would_be_one() {
        for (table, message, help) in [
            (
                "endpoint = 'ssh://ann@rack'",
                "m.toml:5:12: `ssh://ann@rack` is a host to log in at",
                "`ssh = \"ann@rack\"`",
            ),
            ("endpoint = 'https://rack:2376'", "does not say which certificates", "tcp://rack:2376"),
            ("endpoint = 'rack:2376'", "is not an endpoint", "unix://"),
            ("endpoint = 'tcp://rack'", "is not `tcp://host:port`", "2376"),
            ("endpoint = 'tcp://rack:0'", "is not `tcp://host:port`", "2376"),
            ("endpoint = 'unix:///s'\ntls = 'd'", "has no TLS", "leave `tls` out"),
            ("tls = 'd'", "and there is none", ""),
            ("endpoint = 'tcp://rack:1'\ntls = 'missing'", "/base/missing/ca.pem` does not exist", ""),
            ("endpoint = 'tcp://rack:1'\ntls = { ca = 'a' }", "names no certificates", "ca.pem"),
            ("context = ''", "has a name", "docker context ls"),
            ("context = 'a'\nendpoint = 'unix:///s'", "has both `endpoint` and `context`", "in one way"),
            ("ssh = 'a'\ncontext = 'b'", "has both `ssh` and `context`", "in one way"),
        ] {
            let said = host(table).unwrap_err();
            assert!(said.contains(message) && said.contains(help), "{table}: {said}");
        }
    }
}
