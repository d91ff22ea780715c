//! The probes as files that engines can hand into cells.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::engine::Payload;
use crate::fault::{Fault, Phase};
use crate::probes;

/// Writes the embedded probes below `cache`, once per version of the probes.
pub fn materialize(cache: &Path) -> Result<Payload, Fault> {
    let programs = [("kernel", probes::KERNEL), ("libc", probes::LIBC)];
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

fn complete(dir: &Path, programs: &[(&str, &[u8])]) -> bool {
    programs.iter().all(|(name, bytes)| fs::read(dir.join(name)).is_ok_and(|found| found == *bytes))
}
