//! Arguments of the static probes.
//!
//! ```text
//! PROBE [options]                              the probe's own checks
//! kernel run [options] [-- PROGRAM ARG…]…      the checks in a child, then each PROGRAM in turn
//!   --deadline MS    for each program
//!   --bench          micro-benchmarks too, where the probe has some
//!   --only PREFIX    only checks whose id starts with PREFIX (repeatable)
//! ```
//!
//! Goes in: the argument strings. Comes out: `Options`, or what is wrong with them.

use core::ffi::CStr;

use crate::rt::process::{self, Strings};
use crate::rt::text::{Text, number};

pub struct Options {
    pub run: bool,
    pub bench: bool,
    /// Milliseconds for each program of `run`.
    pub deadline: u32,
    only: [Option<&'static CStr>; ONLY],
    /// What follows the first `--`: the first program and all after it.
    pub programs: Option<Strings>,
}

const ONLY: usize = 64;

impl Options {
    /// `runs`: whether this probe can run others.
    pub fn read(runs: bool) -> Result<Options, Text<256>> {
        let mut options = Options { run: false, bench: false, deadline: 60_000, only: [None; ONLY], programs: None };
        let mut strings = process::args();
        strings.next();
        let (mut first, mut only) = (true, 0);
        while let Some(argument) = strings.next() {
            match argument.to_bytes() {
                b"run" if first && runs => options.run = true,
                b"--bench" => options.bench = true,
                b"--only" => {
                    let prefix = strings.next().ok_or_else(|| said(b"--only needs a prefix", b""))?;
                    *options.only.get_mut(only).ok_or_else(|| said(b"too many --only, at ", prefix.to_bytes()))? =
                        Some(prefix);
                    only += 1;
                }
                b"--deadline" => {
                    let text = strings.next().map_or(&b""[..], CStr::to_bytes);
                    let ms = number(text, 10).and_then(|ms| u32::try_from(ms).ok()).filter(|ms| *ms > 0);
                    options.deadline = ms.ok_or_else(|| said(b"--deadline needs milliseconds, not ", text))?;
                }
                b"--" if options.run => {
                    options.programs = Some(strings);
                    break;
                }
                other => return Err(said(b"unknown argument ", other)),
            }
            first = false;
        }
        Ok(options)
    }

    pub fn wanted(&self, id: &[u8]) -> bool {
        self.only[0].is_none() || self.only.iter().flatten().any(|prefix| id.starts_with(prefix.to_bytes()))
    }
}

fn said(what: &[u8], about: &[u8]) -> Text<256> {
    let mut text = Text::new();
    text.add(b"abicus probe: ").add(what).add(&about[..about.len().min(100)]).add(b"\n");
    text
}
