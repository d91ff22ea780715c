//! Builds the probes, one `rustc` call each, and leaves them in `OUT_DIR` for `src/probes.rs` to embed.
//!
//! Not members of the workspace, because a `no_std` program with a panic handler breaks `cargo test` and
//! `clippy --all-targets`; not a nested cargo, because that costs minutes and `cargo package` drops directories with a
//! manifest of their own. The same sources and the same compiler give the same bytes wherever they are built.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    let var = |name: &str| env::var(name).map_err(|e| format!("{name}: {e}"));
    let build = Build {
        rustc: env::var_os("RUSTC").ok_or("RUSTC is not set")?,
        root: var("CARGO_MANIFEST_DIR")?.into(),
        out: var("OUT_DIR")?.into(),
        target: var("TARGET")?,
        arch: var("CARGO_CFG_TARGET_ARCH")?,
        version: var("CARGO_PKG_VERSION")?,
    };
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=probes/rt");
    for probe in ["asking", "kernel", "surroundings", "libc", "launch"] {
        println!("cargo::rerun-if-changed=probes/{probe}");
    }
    if !matches!(build.arch.as_str(), "x86_64" | "aarch64") {
        return Err(format!("no probe for {}: the probes know x86_64 and aarch64", build.arch).into());
    }
    build.fixed("kernel")?;
    build.fixed("surroundings")?;
    build.fixed("launch")?;
    build.libc()?;
    build.catalogue()
}

struct Build {
    rustc: OsString,
    root: PathBuf,
    out: PathBuf,
    target: String,
    arch: String,
    version: String,
}

impl Build {
    /// A list of the catalogue's files for `src/catalog.rs`, so that a new file needs no second mention.
    fn catalogue(&self) -> Result<(), Box<dyn Error>> {
        let dir = self.root.join("probes/catalog");
        println!("cargo::rerun-if-changed=probes/catalog");
        let mut files: Vec<PathBuf> =
            fs::read_dir(&dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_, io::Error>>()?;
        files.retain(|path| path.extension().is_some_and(|e| e == "toml") && !path.ends_with("groups.toml"));
        files.sort();
        let mut list = String::from("const CATALOGUE_FILES: &[(&str, &str)] = &[\n");
        for path in files {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            list += &format!("    ({name:?}, include_str!({path:?})),\n");
        }
        list += "];\n";
        Ok(fs::write(self.out.join("catalogue_files.rs"), list)?)
    }

    /// A static program at a fixed address. A static-pie would have to apply its own relocations first.
    fn fixed(&self, name: &str) -> Result<(), Box<dyn Error>> {
        if !self.has(name)? {
            return Ok(());
        }
        let mut c = self.program(name);
        c.args(["-Crelocation-model=static", "-Clink-arg=-static", "-Clink-arg=-no-pie"]);
        // Nobody unwinds, yet the unwind tables of core come along: a tenth of the program.
        let script = self.out.join("discard.ld");
        fs::write(&script, "SECTIONS { /DISCARD/ : { *(.eh_frame) *(.eh_frame_hdr) } } INSERT AFTER .text;\n")?;
        let mut link = OsString::from("-Clink-arg=-Wl,--no-eh-frame-hdr,-T,");
        link.push(&script);
        c.arg(link);
        // Size matters more than speed in hundreds of checks that run once; the benchmarks' loops are of assembler.
        c.args(["-Copt-level=z", "-Cllvm-args=-inline-threshold=5", "-Cllvm-args=-enable-machine-outliner=always"]);
        self.run(c, name)
    }

    /// A program that needs `libc.so.6` and has no undefined symbol, linked against an empty library of that name.
    fn libc(&self) -> Result<(), Box<dyn Error>> {
        if self.arch != "x86_64" {
            println!("cargo::warning=the libc probe has no entry code for {} yet: this build has none", self.arch);
            fs::write(self.out.join("libc"), b"")?;
            return Ok(());
        }
        if !self.has("libc")? {
            return Ok(());
        }
        let stub = self.out.join("stub");
        fs::create_dir_all(&stub)?;
        let empty = stub.join("empty.rs");
        fs::write(
            &empty,
            "#![no_std]\n#[panic_handler]\nfn panicked(_: &core::panic::PanicInfo) -> ! {\n    loop {}\n}\n",
        )?;
        let mut c = self.compiler("cdylib");
        c.args(["-Crelocation-model=pic", "-Clink-arg=-Wl,-soname,libc.so.6"]);
        c.arg(&empty).arg("-o").arg(stub.join("libc.so"));
        self.run(c, "the empty libc")?;
        let mut c = self.program("libc");
        let mut search = OsString::from("-Clink-arg=-L");
        search.push(&stub);
        c.args(["-Crelocation-model=static", "-Clink-arg=-no-pie"]).arg(search);
        c.args(["-Clink-arg=-Wl,--no-as-needed", "-Clink-arg=-lc", "-Clink-arg=-Wl,--hash-style=both"]);
        c.args(["-Clink-arg=-Wl,--no-eh-frame-hdr", "-Clink-arg=-Wl,-T,probes/libc/link.ld"]);
        // Not as small as the others: outlined code would be slower in the loops that measure.
        c.arg("-Cllvm-args=-inline-threshold=5");
        self.run(c, "libc")
    }

    /// Whether this probe has a source. A driver built from half a source tree says so instead of failing in a cell.
    fn has(&self, name: &str) -> Result<bool, Box<dyn Error>> {
        let has = self.source(name).exists();
        if !has {
            println!("cargo::warning=probes/{name}/main.rs does not exist: this build has no {name} probe");
            fs::write(self.out.join(name), b"")?;
        }
        Ok(has)
    }

    fn source(&self, name: &str) -> PathBuf {
        Path::new("probes").join(name).join("main.rs")
    }

    fn program(&self, name: &str) -> Command {
        let mut c = self.compiler("bin");
        c.arg("--crate-name").arg(format!("abicus_{name}"));
        c.arg(self.source(name)).arg("-o").arg(self.out.join(name));
        c
    }

    /// Options for all: small, aborting, reproducible, for the oldest CPU of the architecture, untouched by the flags the
    /// driver itself is built with.
    fn compiler(&self, kind: &str) -> Command {
        let mut c = Command::new(&self.rustc);
        c.current_dir(&self.root).env("ABICUS_VERSION", &self.version);
        for name in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "CLIPPY_ARGS",
            "LD_LIBRARY_PATH",
        ] {
            c.env_remove(name);
        }
        c.args(["--edition", "2024", "--target", &self.target, "--crate-type", kind]);
        c.args(["-Cpanic=abort", "-Copt-level=s", "-Clto=fat", "-Ccodegen-units=1", "-Cstrip=symbols"]);
        c.args([
            "-Cforce-unwind-tables=no",
            "-Clink-arg=-nostartfiles",
            "-Clink-arg=-nostdlib",
            "-Clink-arg=-Wl,--build-id=none",
        ]);
        c.arg(format!("--remap-path-prefix={}=.", self.root.display()));
        match self.arch.as_str() {
            "x86_64" => c.arg("-Ctarget-cpu=x86-64"),
            // Without it atomics become calls into libgcc.
            _ => c.arg("-Ctarget-feature=-outline-atomics"),
        };
        c
    }

    fn run(&self, mut command: Command, what: &str) -> Result<(), Box<dyn Error>> {
        let output = command.output().map_err(|e| format!("{}: {e}", self.rustc.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(format!("building {what} failed ({}):\n{said}", output.status).into());
        }
        for line in said.lines().filter(|line| !line.trim().is_empty()) {
            println!("cargo::warning={what}: {line}");
        }
        Ok(())
    }
}
