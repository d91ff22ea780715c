//! Crate root of the unit tests of what is pure here: `rustc --test probes/rt/pure.rs`, which `ci/probes` does.

mod line;
mod text;
