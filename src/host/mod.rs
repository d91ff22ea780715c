//! Hosts: how to reach a kernel, and what that kernel and hardware are.
//!
//! In: a host as the matrix declares it. Out: a way to reach it ([`Reach`]) and its facts, nothing volatile among them, so
//! that hosts with equal facts are of one class. Knows no engine and no image.

pub mod agent;
mod endpoint;
mod facts;
mod limits;
mod local;
mod open;
mod per_site;
mod reach;
mod ssh;
mod unreachable;
pub mod vm;

pub use endpoint::AtEndpoint;
pub use facts::{class, facts, loader, words_that_matter};
pub use local::Local;
pub use open::open;
pub(crate) use per_site::PerSite;
pub(crate) use reach::text;
pub use reach::{Launched, Process, Reach, Reader, Site, Stat, Tree, Writer};
pub use ssh::Ssh;
pub use unreachable::Unreachable;
