//! Which container image works on which host under which engine, what changed, and who has to fix it.
//!
//! ```text
//! matrix.toml ─ spec ─ plan ─ execute ─ collect ─ judge ─ store ─ compare ─ render ─ reports/<run>/
//!                              │  ├ host    how to reach a kernel
//!                              │  ├ engine  how to run a process on it
//!                              │  └ image   what to run it from
//!                              └ probes (embedded bytes)
//! ```
//! Data flows one way. `spec`, `plan`, `collect`, `judge`, `compare` and `render` are pure; the rest does the talking.
#![forbid(unsafe_code)]

// In flow order; the words come first.
pub mod catalog;
pub mod fault;
pub mod id;
pub mod probes;

pub mod spec;

pub mod plan;

pub mod execute;

pub mod engine;
pub mod host;
pub mod image;

pub mod collect;

pub mod judge;

pub mod store;

pub mod render;

pub mod cli;
pub mod progress;
