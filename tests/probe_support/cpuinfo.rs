//! The kernel's own list of what the processor has, beside what the kernel probe executed.

use std::collections::HashSet;

use crate::probe_support::Seen;

/// What works and is not in the flags of this /proc/cpuinfo, or is and does not work.
pub fn disagreements(cpuinfo: &str, seen: &Seen) -> Vec<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap();
    let flags: HashSet<&str> = line.split_whitespace().skip(2).collect();
    // Where cpuinfo has a name of its own. OSXSAVE, which lets xgetbv work, it does not show.
    let flag = |name: &str| match name {
        "sse3" => "pni".to_owned(),
        "lahf" => "lahf_lm".to_owned(),
        "lzcnt" => "abm".to_owned(),
        "sha" => "sha_ni".to_owned(),
        "rdtsc" => "tsc".to_owned(),
        "pku" => "ospke".to_owned(),
        "amx" => "amx_tile".to_owned(),
        "xgetbv" => "xsave".to_owned(),
        name => match name.strip_prefix("avx512") {
            Some(kind) if kind.len() > 4 || matches!(kind, "bf16" | "fp16" | "vnni") => format!("avx512_{kind}"),
            _ => name.to_owned(),
        },
    };
    let checks = seen.checks().into_iter();
    checks
        .filter_map(|(id, line)| {
            let name = id.strip_prefix("cpu.")?.strip_suffix(".execute")?;
            let listed = flags.contains(flag(name).as_str());
            (listed != (line["value"] == "works")).then(|| format!("{line}, but /proc/cpuinfo: {listed}"))
        })
        .collect()
}
