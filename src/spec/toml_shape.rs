//! The shape of `matrix.toml`, key by key. Unknown keys are refused here; names and paths are resolved later.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::terms::{ProfileTable, WaiverTable};
use super::vm::VmTable;
use crate::engine::EngineOptions;
use crate::image::Pull;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub matrix: Option<MatrixTable>,
    #[serde(default)]
    pub defaults: DefaultsTable,
    #[serde(default)]
    pub image: Vec<Spanned<ImageTable>>,
    #[serde(default)]
    pub host: Vec<Spanned<HostTable>>,
    /// As `hosts`: read before this is, so that it is a name of the file and nothing else.
    pub include: Option<Spanned<toml::Value>>,
    pub hosts: Option<Spanned<toml::Value>>,
    #[serde(default)]
    pub engine: Vec<Spanned<EngineTable>>,
    #[serde(default)]
    pub registry: Vec<RegistryTable>,
    #[serde(default)]
    pub exclude: Vec<ExcludeTable>,
    pub profile: Option<ProfileTable>,
    #[serde(default)]
    pub waiver: Vec<Spanned<WaiverTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MatrixTable {
    pub name: String,
    pub baseline: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct DefaultsTable {
    pub timeout: Option<Spanned<String>>,
    pub retries: Option<u32>,
    pub output_cap: Option<Spanned<String>>,
    pub parallel: Option<Spanned<usize>>,
    pub bench: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImageTable {
    pub name: Spanned<String>,
    pub reference: Option<Spanned<String>>,
    pub platform: Option<Spanned<String>>,
    pub pull: Option<Spanned<Pull>>,
    pub archive: Option<Spanned<String>>,
    pub layout: Option<Spanned<String>>,
    pub tag: Option<Spanned<String>>,
    pub rootfs: Option<Spanned<String>>,
    pub bootstrap: Option<Spanned<BootstrapTable>>,
    pub scratch: Option<Spanned<bool>>,
    #[serde(default)]
    pub optional: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BootstrapTable {
    pub suite: Option<Spanned<String>>,
    pub variant: Option<Spanned<String>>,
    pub releasever: Option<Spanned<String>>,
    #[serde(default)]
    pub repos: Vec<Spanned<String>>,
    #[serde(default)]
    pub keys: Vec<Spanned<String>>,
    pub arch: Option<String>,
    #[serde(default)]
    pub include: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegistryTable {
    pub host: Spanned<String>,
    #[serde(default)]
    pub mirrors: Vec<Spanned<String>>,
    #[serde(default)]
    pub insecure: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HostTable {
    pub name: Spanned<String>,
    pub ssh: Option<Spanned<String>>,
    pub ssh_config: Option<Spanned<String>>,
    pub endpoint: Option<Spanned<String>>,
    pub tls: Option<Spanned<toml::Value>>,
    pub context: Option<Spanned<String>>,
    pub vm: Option<Spanned<VmTable>>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub parallel: Option<Spanned<usize>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EngineTable {
    pub name: Spanned<String>,
    pub kind: Spanned<String>,
    pub runtime: Option<Spanned<String>>,
    pub script: Option<Spanned<String>>,
    #[serde(default)]
    pub options: EngineOptions,
    #[serde(default)]
    pub optional: bool,
    pub parallel: Option<Spanned<usize>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExcludeTable {
    pub cells: Spanned<String>,
    pub reason: String,
}
