//! The probes as files that engines can hand into cells, and how they are started there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::engine::Payload;
use crate::fault::{Fault, Phase};
use crate::probes;

/// Writes the embedded probes below `cache`, once per version of the probes.
pub fn materialize(cache: &Path) -> Result<Payload, Fault> {
    let programs = [("kernel", probes::KERNEL), ("surroundings", probes::SURROUNDINGS), ("libc", probes::LIBC)];
    let mut hasher = blake3::Hasher::new();
    for (name, bytes) in programs {
        hasher.update(name.as_bytes()).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    }
    let digest = hasher.finalize().to_hex()[..32].to_owned();
    let parent = cache.join("payload");
    let dir = parent.join(&digest);
    let fault = |error: std::io::Error| Fault::new(Phase::Inject, format!("{}: {error}", dir.display()));
    if complete(&dir, &programs) {
        return Ok(Payload { dir, digest });
    }
    fs::create_dir_all(&parent).map_err(fault)?;
    let new = tempfile::Builder::new().prefix(".new-").tempdir_in(&parent).map_err(fault)?;
    for (name, bytes) in programs {
        let path = new.path().join(name);
        fs::write(&path, bytes).map_err(fault)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o555)).map_err(fault)?;
    }
    fs::set_permissions(new.path(), fs::Permissions::from_mode(0o755)).map_err(fault)?;
    // A half-written payload of a process that died is replaced; a whole one of another process is as good as ours.
    if fs::rename(new.path(), &dir).is_err() && !complete(&dir, &programs) {
        fs::remove_dir_all(&dir).map_err(fault)?;
        fs::rename(new.path(), &dir).map_err(fault)?;
    }
    Ok(Payload { dir, digest })
}

/// The command that runs all probes: the kernel probe supervises the others, so that a cell costs one container. `dir` is
/// where the payload lies, `loader` runs the libc probe where there is a libc, `time` is for all of them, and `options` are
/// for each.
pub fn command(dir: &str, loader: Option<&str>, time: Duration, options: &[String]) -> Vec<String> {
    let mut programs = vec![vec![format!("{dir}/surroundings")]];
    programs.extend(loader.map(|loader| vec![loader.to_owned(), format!("{dir}/libc")]));
    let each = time.as_millis() / (1 + programs.len() as u128);
    let mut argv = vec![format!("{dir}/kernel"), "run".into(), "--deadline".into(), each.max(1).to_string()];
    argv.extend_from_slice(options);
    for program in programs {
        argv.push("--".into());
        argv.extend(program);
        argv.extend_from_slice(options);
    }
    argv
}

fn complete(dir: &Path, programs: &[(&str, &[u8])]) -> bool {
    programs.iter().all(|(name, bytes)| fs::read(dir.join(name)).is_ok_and(|found| found == *bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_gets_its_share_of_the_time_and_the_options() {
        let second = Duration::from_secs(1);
        assert_eq!(command("/p", None, second, &[]).join(" "), "/p/kernel run --deadline 500 -- /p/surroundings");
        assert_eq!(
            command("/p", Some("/lib/ld.so"), second, &["--bench".to_owned()]).join(" "),
            "/p/kernel run --deadline 333 --bench -- /p/surroundings --bench -- /lib/ld.so /p/libc --bench"
        );
    }
}
