//! The pure modules of the libc probe, with their tests: `rustc --test probes/libc/pure.rs`.

#[path = "decode.rs"]
mod decode;
