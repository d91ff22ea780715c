//! Shape → [`Matrix`]: names checked and unique, one source per image, paths found, durations and sizes read.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;

use super::error::{Errors, did_you_mean};
use super::terms;
use super::toml_shape::{BootstrapTable, DefaultsTable, EngineTable, ExcludeTable, File, ImageTable, RegistryTable};
use super::{CellGlob, Defaults, EngineKind, EngineSpec, Exclude, ImageSpec, Matrix, RegistrySpec, SpecErrors, World};
use crate::catalog::Catalogue;
use crate::engine::options::Seccomp;
use crate::id::{CellId, CheckId, EngineId, ImageId, InvalidName};
use crate::image::registry::Reference;
use crate::image::{Bootstrap, Deb, Rpm, Source, is_repository};

/// Reads a matrix. `file` is the name errors carry.
pub fn resolve(text: &str, file: &str, world: &World<'_>) -> Result<Matrix, SpecErrors> {
    let mut errors = Errors::new(file, text);
    let shape: File = match toml::from_str(text) {
        Ok(shape) => shape,
        Err(error) => {
            errors.add_toml(&error);
            return errors.into_result(()).and_then(|()| Err(SpecErrors(vec![])));
        }
    };
    for list in [&shape.include, &shape.hosts].into_iter().flatten() {
        errors.add(list.span(), "this list of hosts was not read", Some("it belongs into the file itself".into()));
    }
    let defaults = defaults(shape.defaults, &mut errors);
    let mut names = Names::default();
    let images = each(shape.image, |table| image(table, world, &mut names, &mut errors));
    let hosts = each(shape.host, |table| super::host::host(table, world, &mut names, &mut errors));
    let mut engines = each(shape.engine, |table| engine(table, world, &mut names, &mut errors));
    if names.any("host") && !names.any("engine") && !names.any("image") {
        // A kernel and nothing else: what it is without any engine is all that can be asked.
        engines.push(crate::plan::bare_engine("native", EngineKind::Native));
    }
    let matrix = Matrix {
        name: shape.matrix.as_ref().map_or_else(|| "matrix".to_owned(), |matrix| matrix.name.clone()),
        baseline: shape.matrix.and_then(|matrix| matrix.baseline),
        defaults,
        images,
        hosts,
        engines,
        registries: shape.registry.into_iter().map(|table| registry(table, &mut errors)).collect(),
        excludes: vec![],
        terms: terms::read(shape.profile, shape.waiver, &mut errors),
    };
    if matrix.hosts.is_empty() && !names.any("host") {
        errors.add(0..0, "no [[host]]: nothing to run on", Some("add `[[host]]` with `name = \"local\"`".into()));
    }
    if matrix.engines.is_empty() && !names.any("engine") {
        let help = "add `[[engine]]` with `name = \"built-in\"` and `kind = \"built-in\"`";
        errors.add(0..0, "no [[engine]]: nothing to run with", Some(help.into()));
    }
    if matrix.images.is_empty() && !names.any("image") && matrix.engines.iter().any(|e| e.kind.has_image()) {
        let help = "add `[[image]]` with `name = \"scratch\"` and `scratch = true`";
        errors.add(0..0, "no [[image]]: the engines have nothing to run", Some(help.into()));
    }
    let excludes = excludes(shape.exclude, &matrix, &mut errors);
    let checks: Vec<&CheckId> = Catalogue::built_in().rows().map(|row| &row.id).collect();
    terms::nothing_matches(&matrix.terms, text, &all_cells(&matrix).collect::<Vec<_>>(), &checks, &mut errors);
    errors.into_result(Matrix { excludes, ..matrix })
}

fn each<T, R>(tables: Vec<Spanned<T>>, resolve: impl FnMut(Spanned<T>) -> Option<R>) -> Vec<R> {
    tables.into_iter().filter_map(resolve).collect()
}

/// Names seen so far, per kind of thing.
#[derive(Default)]
pub(super) struct Names(BTreeMap<(&'static str, String), ()>);

impl Names {
    fn any(&self, what: &str) -> bool {
        self.0.keys().any(|(kind, _)| *kind == what)
    }

    pub(super) fn add<Id: FromStr<Err = InvalidName>>(
        &mut self,
        what: &'static str,
        name: &Spanned<String>,
        errors: &mut Errors<'_>,
    ) -> Option<Id> {
        let text = name.get_ref();
        if self.0.insert((what, text.clone()), ()).is_some() {
            let help = format!("rename one: a name stands for one {what}");
            errors.add(name.span(), format!("{what} `{text}` is declared twice"), Some(help));
            return None;
        }
        if text.starts_with(crate::plan::OWN) {
            let message =
                format!("{what} `{text}`: names that begin with `{}` are for control cells", crate::plan::OWN);
            errors.add(name.span(), message, Some("choose another name".into()));
            return None;
        }
        match text.parse() {
            Ok(id) => Some(id),
            Err(error) => {
                errors.add(name.span(), error.to_string(), None);
                None
            }
        }
    }
}

fn defaults(table: DefaultsTable, errors: &mut Errors<'_>) -> Defaults {
    let mut defaults = Defaults::default();
    if let Some(text) = table.timeout {
        match duration(text.get_ref()) {
            Some(timeout) => defaults.timeout = timeout,
            None => errors.add(
                text.span(),
                format!("`{}` is not a duration", text.get_ref()),
                Some("write `500ms`, `60s`, `5m` or `1h`, more than zero and at most a day".into()),
            ),
        }
    }
    if let Some(text) = table.output_cap {
        match size(text.get_ref(), 64 << 10..=1 << 30) {
            Some(cap) => defaults.output_cap = cap,
            None => errors.add(
                text.span(),
                format!("`{}` is not a size", text.get_ref()),
                Some("write `512KiB` or `4MiB`, from 64KiB to 1GiB".into()),
            ),
        }
    }
    defaults.parallel = at_least_one(table.parallel, errors);
    defaults.retries = table.retries.unwrap_or(defaults.retries);
    defaults.bench = table.bench.unwrap_or(defaults.bench);
    defaults
}

pub(super) fn at_least_one(number: Option<Spanned<usize>>, errors: &mut Errors<'_>) -> Option<usize> {
    let number = number?;
    if *number.get_ref() == 0 {
        errors.add(number.span(), "`parallel` must be at least 1", None);
    }
    Some(number.into_inner())
}

/// Reads `500ms`, `60s`, `5m`, `1h`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let ms = match text[digits..].trim() {
        "ms" => number,
        "s" => number.checked_mul(1000)?,
        "m" | "min" => number.checked_mul(60_000)?,
        "h" => number.checked_mul(3_600_000)?,
        _ => return None,
    };
    (1..=86_400_000).contains(&ms).then(|| Duration::from_millis(ms))
}

/// Reads `512KiB`, `4MiB`, `2GiB`.
pub(super) fn size(text: &str, within: RangeInclusive<usize>) -> Option<usize> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: usize = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit).filter(|bytes| within.contains(bytes))
}

fn image(
    table: Spanned<ImageTable>,
    world: &World<'_>,
    names: &mut Names,
    errors: &mut Errors<'_>,
) -> Option<ImageSpec> {
    let span = table.span();
    let table = table.into_inner();
    let name = table.name.get_ref().clone();
    let id: Option<ImageId> = names.add("image", &table.name, errors);
    if let Some(id) = &id
        && id.is_none()
    {
        errors.add(table.name.span(), "`-` names the image of cells that have none", None);
    }
    let mut path = |text: &Spanned<String>| existing(text, world, errors);
    let tag = table.tag.as_ref().map(|tag| tag.get_ref().clone());
    let mut sources: Vec<(&str, Range<usize>, Source)> = vec![];
    if let Some(text) = &table.archive {
        sources.push(("archive", text.span(), Source::Archive { path: path(text), tag: tag.clone() }));
    }
    if let Some(text) = &table.layout {
        sources.push(("layout", text.span(), Source::Layout { path: path(text), tag: tag.clone() }));
    }
    if let Some(text) = &table.rootfs {
        sources.push(("rootfs", text.span(), Source::Rootfs(path(text))));
    }
    if let Some(text) = &table.reference {
        sources.push(("reference", text.span(), reference(text, &table, errors)));
    }
    if let Some(bootstrap) = &table.bootstrap
        && let Some(wanted) = packages(bootstrap, world, errors)
    {
        sources.push(("bootstrap", bootstrap.span(), Source::Bootstrap(wanted)));
    }
    if let Some(scratch) = &table.scratch {
        if !scratch.get_ref() {
            errors.add(scratch.span(), "`scratch` can only be true", Some("leave the key out".into()));
        }
        sources.push(("scratch", scratch.span(), Source::Scratch));
    }
    for (key, span) in
        [("platform", table.platform.as_ref().map(Spanned::span)), ("pull", table.pull.as_ref().map(Spanned::span))]
    {
        if let Some(span) = span.filter(|_| table.reference.is_none()) {
            errors.add(span, format!("`{key}` is about a `reference`, and there is none"), None);
        }
    }
    if let Some(tag) = &table.tag
        && table.layout.is_none()
        && table.archive.is_none()
    {
        errors.add(tag.span(), "`tag` picks an image of a `layout` or `archive`, and there is none", None);
    }
    const KINDS: &str = "give one of `reference`, `archive`, `layout`, `rootfs`, `bootstrap`, `scratch`";
    match sources.len() {
        // What is wrong with it was said.
        0 if table.bootstrap.is_some() => None,
        0 => {
            errors.add(span, format!("image `{name}` has no source"), Some(KINDS.into()));
            None
        }
        1 => {
            let (_, _, source) = sources.remove(0);
            id.map(|id| ImageSpec { id, source, optional: table.optional })
        }
        _ => {
            let message = format!("image `{name}` has both `{}` and `{}`", sources[0].0, sources[1].0);
            errors.add(sources[1].1.clone(), message, Some(KINDS.into()));
            None
        }
    }
}

/// A `suite` or a `releasever`, and what goes with each.
fn packages(table: &Spanned<BootstrapTable>, world: &World<'_>, errors: &mut Errors<'_>) -> Option<Bootstrap> {
    const KINDS: &str =
        "give `suite` for Debian, Ubuntu and their like, `releasever` for Fedora, Rocky, openSUSE and theirs";
    let BootstrapTable { suite, variant, releasever, repos, keys, arch, include } = table.get_ref();
    let (arch, include) = (arch.clone(), include.clone());
    match (suite, releasever) {
        (Some(suite), None) => {
            for (key, list) in [("repos", repos), ("keys", keys)] {
                if let Some(first) = list.first() {
                    errors.add(
                        first.span(),
                        format!("`{key}` go with a `releasever`, and there is none"),
                        Some(KINDS.into()),
                    );
                }
            }
            let variant = variant.as_ref().map(|variant| variant.get_ref().clone());
            Some(Bootstrap::Deb(Deb { suite: suite.get_ref().clone(), arch, variant, include }))
        }
        (None, Some(releasever)) => {
            if let Some(variant) = variant {
                errors.add(variant.span(), "`variant` goes with a `suite`, and there is none", Some(KINDS.into()));
            }
            for url in repos.iter().filter(|url| !is_repository(url.get_ref())) {
                let help = "write `https://…/`, `http://…/` or `file:///…`, one in each string, without a password";
                errors.add(
                    url.span(),
                    format!("`{}` is not the address of a repository", url.get_ref()),
                    Some(help.into()),
                );
            }
            if let Some(key) = keys.first().filter(|_| repos.is_empty()) {
                let message = "`keys` go with `repos`, and there are none";
                errors.add(key.span(), message, Some("this machine's repositories have keys of their own".into()));
            }
            let keys = keys.iter().map(|key| existing(key, world, errors)).collect();
            let repos = repos.iter().map(|url| url.get_ref().clone()).collect();
            Some(Bootstrap::Rpm(Rpm { releasever: releasever.get_ref().clone(), repos, keys, arch, include }))
        }
        (None, None) => {
            errors.add(table.span(), "`bootstrap` does not say of what", Some(KINDS.into()));
            None
        }
        (Some(_), Some(releasever)) => {
            errors.add(releasever.span(), "`bootstrap` has both `suite` and `releasever`", Some(KINDS.into()));
            None
        }
    }
}

fn reference(text: &Spanned<String>, table: &ImageTable, errors: &mut Errors<'_>) -> Source {
    if let Err(error) = Reference::parse(text.get_ref()) {
        let help = "a reference looks like `docker.io/library/debian:12`";
        errors.add(text.span(), error.to_string(), Some(help.into()));
    }
    let architecture = table.platform.as_ref().and_then(|platform| {
        let architecture = architecture(platform.get_ref());
        if architecture.is_none() {
            let message = format!("`{}` is not a platform abicus knows", platform.get_ref());
            errors.add(platform.span(), message, Some("write `linux/386` or `linux/arm64`".into()));
        }
        architecture
    });
    let pull = table.pull.as_ref().map(|pull| *pull.get_ref()).unwrap_or_default();
    Source::Reference { reference: text.get_ref().clone(), architecture, pull }
}

/// `386` of `linux/386`, `arm/v7` of `linux/arm/v7`. The only variant of arm64, `v8`, is not always written.
fn architecture(platform: &str) -> Option<String> {
    let name = platform.strip_prefix("linux/")?;
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric());
    let good = name.split('/').count() <= 2 && name.split('/').all(is_word);
    good.then(|| if name == "arm64/v8" { "arm64".to_owned() } else { name.to_owned() })
}

fn registry(table: RegistryTable, errors: &mut Errors<'_>) -> RegistrySpec {
    for mirror in &table.mirrors {
        let host = mirror.get_ref().strip_prefix("https://").or_else(|| mirror.get_ref().strip_prefix("http://"));
        if host.is_none_or(|host| host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control())) {
            let message = format!("`{}` is not the address of a mirror", mirror.get_ref());
            errors.add(mirror.span(), message, Some("write `https://mirror.example.org`".into()));
        }
    }
    if table.host.get_ref().contains('/') {
        let help = "write it as references do: `docker.io`, `registry.example.org:5000`";
        errors.add(table.host.span(), format!("`{}` is not a host", table.host.get_ref()), Some(help.into()));
    }
    RegistrySpec {
        host: table.host.into_inner(),
        mirrors: table.mirrors.into_iter().map(Spanned::into_inner).collect(),
        insecure: table.insecure,
    }
}

pub(super) fn existing(text: &Spanned<String>, world: &World<'_>, errors: &mut Errors<'_>) -> PathBuf {
    let path = world.base.join(text.get_ref());
    if !(world.exists)(&path) {
        let help = "relative paths start from the directory of the matrix";
        errors.add(text.span(), format!("`{}` does not exist", path.display()), Some(help.into()));
    }
    path
}

fn engine(
    table: Spanned<EngineTable>,
    world: &World<'_>,
    names: &mut Names,
    errors: &mut Errors<'_>,
) -> Option<EngineSpec> {
    let table = table.into_inner();
    let id: Option<EngineId> = names.add("engine", &table.name, errors);
    let name = table.kind.get_ref();
    let Some((_, kind)) = EngineKind::NAMES.iter().find(|(known, _)| known == name) else {
        let known = EngineKind::NAMES.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let near = did_you_mean(name, EngineKind::NAMES.iter().map(|(name, _)| *name));
        let help = near.unwrap_or_else(|| format!("engines are {known}"));
        errors.add(table.kind.span(), format!("unknown kind of engine `{name}`, expected one of {known}"), Some(help));
        return None;
    };
    if let Some(runtime) = &table.runtime
        && !kind.has_runtime()
    {
        errors.add(runtime.span(), format!("a {kind} engine has no runtime to choose"), None);
    }
    if table.runtime.is_none() && *kind == EngineKind::Oci {
        let help = "give `runtime`: \"runc\", \"crun\", \"youki\", \"runsc\", or the path of another";
        errors.add(
            table.kind.span(),
            format!("engine `{}` does not say which OCI runtime", table.name.get_ref()),
            Some(help.into()),
        );
    }
    let script = table.script.as_ref().map(|script| existing(script, world, errors));
    if let Some(script) = &table.script
        && *kind != EngineKind::Scripted
    {
        errors.add(script.span(), format!("a {kind} engine plays no script"), None);
    }
    let mut options = table.options;
    if let Some(Seccomp::File(path)) = &mut options.seccomp {
        let text = path.display().to_string();
        *path = world.base.join(&*path);
        if !(world.exists)(path) {
            let message = format!("seccomp profile `{}` does not exist", path.display());
            let help =
                format!("`seccomp` is `default`, `unconfined` or the path of a profile; `{text}` was taken as a path");
            errors.add(table.name.span(), message, Some(help));
        }
    }
    Some(EngineSpec {
        id: id?,
        kind: *kind,
        runtime: table.runtime.map(Spanned::into_inner),
        script,
        options,
        optional: table.optional,
        parallel: at_least_one(table.parallel, errors),
    })
}

fn excludes(tables: Vec<ExcludeTable>, matrix: &Matrix, errors: &mut Errors<'_>) -> Vec<Exclude> {
    let mut excludes = vec![];
    for table in tables {
        match table.cells.get_ref().parse::<CellGlob>() {
            Ok(cells) => {
                if !all_cells(matrix).any(|cell| cells.matches(&cell)) {
                    let help = format!("the axes are {}", axes(matrix));
                    errors.add(table.cells.span(), format!("`{cells}` matches no cell of this matrix"), Some(help));
                }
                excludes.push(Exclude { cells, reason: table.reason });
            }
            Err(error) => errors.add(table.cells.span(), error.to_string(), None),
        }
    }
    excludes
}

fn axes(matrix: &Matrix) -> String {
    let list = |names: Vec<&str>| format!("{{{}}}", names.join(", "));
    format!(
        "{}:{}:{}",
        list(matrix.hosts.iter().map(|host| host.id.as_str()).collect()),
        list(matrix.engines.iter().map(|engine| engine.id.as_str()).collect()),
        list(matrix.images.iter().map(|image| image.id.as_str()).collect()),
    )
}

/// Every combination, before excludes; an engine without images has one cell per host.
pub(crate) fn all_cells(matrix: &Matrix) -> impl Iterator<Item = CellId> + '_ {
    let none = [ImageId::none()];
    matrix.hosts.iter().flat_map(move |host| {
        let none = none.clone();
        matrix.engines.iter().flat_map(move |engine| {
            let images: Vec<ImageId> = if engine.kind.has_image() {
                matrix.images.iter().map(|image| image.id.clone()).collect()
            } else {
                none.to_vec()
            };
            images.into_iter().map(move |image| CellId { host: host.id.clone(), engine: engine.id.clone(), image })
        })
    })
}
