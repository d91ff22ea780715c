//! The kernel probe on processors that this machine does not have, emulated by QEMU.
//!
//! Needs QEMU, busybox-static, and a kernel that apt downloads once. What is absent fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_arch = "x86_64")]

#[path = "probe_support/cpuinfo.rs"]
mod cpuinfo;
#[path = "probe_support/guest.rs"]
mod guest;
mod probe_support;
#[path = "probe_support/ways.rs"]
mod ways;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use abicus::catalog::Catalogue;
use guest::{CLOUD, Guest};
use object::{Object, ObjectSection};
use probe_support::{Action, Seen, filter, free, jailed, kernel, rule};
use ways::Ways;

/// The probe in a guest, after /proc/cpuinfo, which is in `raw`.
fn guest(cpu: &str, cmdline: &str) -> Seen {
    Guest { cpu, cmdline, ..Guest::of(CLOUD, "cat /proc/cpuinfo; /kernel --only cpu.") }.boot()
}

#[test]
fn processors_that_lack_a_feature_say_so() {
    // What the first that has it runs, the one before it does not.
    let models = [("qemu64", "1"), ("Nehalem", "2"), ("Haswell", "3"), ("max", "3")];
    let first =
        [("popcnt", 1), ("sse4_2", 1), ("avx", 2), ("avx2", 2), ("fma", 2), ("bmi1", 2), ("lzcnt", 2), ("xsave", 2)];
    guest::image(CLOUD);
    let guests = std::thread::scope(|scope| {
        let guests = models.map(|(model, _)| scope.spawn(move || guest(model, "")));
        guests.map(|guest| guest.join().unwrap())
    });
    for (i, ((model, level), seen)) in models.into_iter().zip(guests).enumerate() {
        let wrong = cpuinfo::disagreements(&seen.raw, &seen);
        assert!(wrong.is_empty(), "{model}: {}", wrong.join("\n"));
        assert_eq!(seen.saw("cpu.level"), level, "{model}");
        for (name, from) in first {
            let expected = if i >= from { "works" } else { "not-asked" };
            assert_eq!(seen.saw(&format!("cpu.{name}.execute")), expected, "{model} {name}");
        }
        assert_eq!(seen.saw("cpu.avx512f.execute"), "not-asked", "{model}");
        // QEMU runs it and does not list it: neither alone is to be believed.
        assert_eq!(seen.saw("cpu.waitpkg.execute"), "works, not advertised", "{model}");
        assert_eq!(seen.saw("cpu.umip"), if model == "max" { "hidden" } else { "readable" }, "{model}");
        assert_eq!(seen.saw("cpu.pku.execute"), if model == "max" { "works" } else { "not-asked" }, "{model}");
        let small = seen.saw("cpu.minsigstksz").parse::<u32>().unwrap() <= 2048;
        assert_eq!(seen.saw("cpu.sigaltstack.2048"), if small { "ok" } else { "signal 11" }, "{model}");
        assert_eq!(seen.saw("cpu.vector.signal"), "ok", "{model}");
    }
}

#[test]
fn registers_that_the_kernel_does_not_enable_are_not_used() {
    let seen = guest("Haswell", "clearcpuid=avx");
    assert_eq!(seen.saw("cpu.level"), "2");
    assert_eq!(seen.saw("cpu.xcr0"), "0x3");
    assert_eq!(seen.saw("cpu.xcr0.complete"), "not enabled: avx f16c fma avx2");
    assert_eq!(
        seen.checks()["cpu.avx2.execute"]["why"],
        "the processor lists it, but XCR0 does not enable its registers"
    );
    assert_eq!(seen.saw("cpu.vector.signal"), "ok");
}

/// Instructions, as objdump names them, of which a check of the processor has at least one.
const INSTRUCTIONS: [&str; 61] = [
    "adcx",
    "aesenc",
    "andn",
    "clflush",
    "clflushopt",
    "clwb",
    "clzero",
    "cmpxchg16b",
    "crc32",
    "extrq",
    "gf2p8mulb",
    "haddpd",
    "lahf",
    "lzcnt",
    "movbe",
    "movdir64b",
    "movdiri",
    "pclmullqlqdq",
    "pext",
    "pextrq",
    "pmulld",
    "popcnt",
    "pshufb",
    "rdgsbase",
    "rdpid",
    "rdpkru",
    "rdrand",
    "rdseed",
    "rdtsc",
    "rdtscp",
    "serialize",
    "sha1nexte",
    "tpause",
    "vaddpd",
    "vaddph",
    "vaesenc",
    "vcvtneps2bf16",
    "vcvtph2ps",
    "vextracti128",
    "vfmadd213sd",
    "vpaddb",
    "vpaddd",
    "vpaddq",
    "vpclmullqlqdq",
    "vpdpbusd",
    "vpermb",
    "vplzcntq",
    "vpmadd52luq",
    "vpmullq",
    "vpopcntb",
    "vpopcntq",
    "vpshldq",
    "xbegin",
    "xsave",
    "xsavec",
    "xsaveopt",
    "wrpkru",
    "wrgsbase",
    "adox",
    "tzcnt",
    "movddup",
];

/// A kernel probe in which each of these is an instruction that no processor has: a processor that lists what it cannot do.
fn crippled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut program = fs::read(kernel()).unwrap();
    let output = Command::new("objdump").args(["-d", "--insn-width=16", "-M", "intel"]).arg(kernel()).output().unwrap();
    let listing = String::from_utf8(output.stdout).unwrap();
    let file = object::File::parse(program.as_slice()).unwrap();
    let text = file.section_by_name(".text").unwrap();
    let (from, base) = (text.file_range().unwrap().0, text.address());
    let mut places: Vec<usize> = Vec::new();
    let mut found = BTreeSet::new();
    let mut own = None;
    for line in listing.lines() {
        // `  201a40:\t66 0f 38 00 c1 \tpshufb xmm0,xmm1`
        let [at, _, text] = line.splitn(3, '\t').collect::<Vec<_>>()[..] else { continue };
        let name =
            text.trim_start_matches("lock ").trim_start_matches("{vex} ").split_whitespace().next().unwrap_or("");
        // The probe itself learns by xgetbv what it may use; the check goes on with this.
        if text.starts_with("and") && text.ends_with("eax,0x3") {
            places.extend(own.take());
        }
        if name == "xgetbv" {
            let at = u64::from_str_radix(at.trim().trim_end_matches(':'), 16).unwrap();
            own = Some((at - base + from) as usize);
            continue;
        }
        own = None;
        if INSTRUCTIONS.contains(&name) {
            let at = u64::from_str_radix(at.trim().trim_end_matches(':'), 16).unwrap();
            places.push((at - base + from) as usize);
            found.insert(name);
        }
    }
    let missing: Vec<_> = INSTRUCTIONS.iter().filter(|name| !found.contains(*name)).collect();
    assert!(missing.is_empty(), "not in the probe: {missing:?}");
    for at in places {
        // ud2
        program[at..at + 2].copy_from_slice(&[0x0f, 0x0b]);
    }
    fs::write(dir.path().join("kernel"), program).unwrap();
    fs::set_permissions(dir.path().join("kernel"), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Each check of the processor here, on emulated ones, and where what is listed does not work.
#[test]
fn every_check_has_been_seen_to_answer_both_ways() {
    let rows = || Catalogue::built_in().rows().filter(|row| row.id.as_str().starts_with("cpu."));
    let mut ways = Ways::default();
    let mut add = |name: &str, seen: &Seen| ways.add(name, seen, rows());
    let only = ["--only", "cpu."];
    add("natively", &free(&only));
    let crippled = crippled();
    let probe = crippled.path().join("kernel");
    add("crippled", &Seen::of(Command::new(&probe).args(only)));
    const SIGALTSTACK: u32 = 131;
    add("no signal stacks", &jailed(&filter(&[rule(SIGALTSTACK, Action::Errno(1))], Action::Allow), &only));
    for (cpu, cmdline) in [
        ("qemu64", "nosmt transparent_hugepage=never"),
        ("max", "notsc clocksource=acpi_pm"),
        ("Haswell", "clearcpuid=avx"),
    ] {
        add(cpu, &guest(cpu, cmdline));
    }
    let max = Guest::of(CLOUD, "/kernel --only cpu.");
    add("max, crippled", &max.boot_with(&probe));
    let script = "grep -v ^flags /proc/cpuinfo >/tmp/cpuinfo; echo flags: fpu >>/tmp/cpuinfo; \
                  mount --bind /tmp/cpuinfo /proc/cpuinfo; /kernel --only cpu.";
    add("a made-up cpuinfo", &Guest::of(CLOUD, script).boot());
    let wrong = ways.wrong("processor", rows());
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}
