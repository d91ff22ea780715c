//! Getting the payload in: whether the engine sees this machine's files, and the tar file for an engine that does not.
//!
//! In: the payload's directory. Out: a [`Delivery`], proved by letting the engine read the files back through a container
//! that is never started, or a tar file. A socket on this machine proves nothing: it can be forwarded, and a daemon can
//! live in another mount namespace.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::Bytes;

use crate::engine::PAYLOAD_DIR;

/// The payload's files by name; what is not a regular file does not belong there and is left out.
pub(super) fn read_files(dir: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.insert(entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?);
        }
    }
    Ok(files)
}

/// Whether any user may read the directory and execute its files: a bind mount keeps their modes, and root in a container
/// may be an ordinary user outside.
pub(super) fn open_to_all(dir: &Path) -> io::Result<bool> {
    let open = |path: &Path| Ok::<_, io::Error>(std::fs::metadata(path)?.permissions().mode() & 0o005 == 0o005);
    if !open(dir)? {
        return Ok(false);
    }
    for entry in std::fs::read_dir(dir)? {
        if !open(&entry?.path())? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A tar file with the payload (and `/etc/hosts`, where asked for) relative to `/`, or to the payload's directory alone.
pub(super) fn tar(dir: &Path, hosts: Option<&str>, at_root: bool) -> io::Result<Bytes> {
    let mut tar = tar::Builder::new(Vec::new());
    let prefix = if at_root { format!("{}/", PAYLOAD_DIR.trim_start_matches('/')) } else { String::new() };
    if at_root {
        append(&mut tar, &prefix, tar::EntryType::Directory, 0o755, &[])?;
    }
    for (name, bytes) in read_files(dir)? {
        append(&mut tar, &format!("{prefix}{name}"), tar::EntryType::Regular, 0o755, &bytes)?;
    }
    if let Some(hosts) = hosts {
        append(&mut tar, "etc/hosts", tar::EntryType::Regular, 0o644, hosts.as_bytes())?;
    }
    Ok(tar.into_inner()?.into())
}

fn append(
    tar: &mut tar::Builder<Vec<u8>>,
    path: &str,
    kind: tar::EntryType,
    mode: u32,
    bytes: &[u8],
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, path, bytes)
}

/// Whether a tar file the engine made of [`PAYLOAD_DIR`] holds exactly these files.
pub(super) fn holds(archive: &[u8], files: &BTreeMap<String, Vec<u8>>) -> bool {
    let mut seen = BTreeMap::new();
    let mut archive = tar::Archive::new(archive);
    let Ok(entries) = archive.entries() else { return false };
    for entry in entries {
        let Ok(mut entry) = entry else { return false };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().ok().and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()));
        let mut bytes = Vec::new();
        let (Some(name), Ok(_)) = (name, entry.read_to_end(&mut bytes)) else { return false };
        seen.insert(name, bytes);
    }
    seen == *files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("kernel"), b"ELF").unwrap();
        std::fs::write(dir.path().join("libc"), vec![7; 3000]).unwrap();
        dir
    }

    #[test]
    fn an_archive_of_the_same_files_proves_that_the_engine_sees_them() {
        let dir = payload();
        let files = read_files(dir.path()).unwrap();
        let archive = tar(dir.path(), None, true).unwrap();
        assert!(holds(&archive, &files));

        std::fs::write(dir.path().join("libc"), vec![8; 3000]).unwrap();
        assert!(!holds(&archive, &read_files(dir.path()).unwrap()), "other bytes");
        std::fs::remove_file(dir.path().join("libc")).unwrap();
        assert!(!holds(&archive, &read_files(dir.path()).unwrap()), "another file");
        assert!(!holds(b"no archive", &files));
        assert!(!holds(&archive[..1500], &files), "cut off");
    }

    #[test]
    fn uploaded_files_are_executable_by_everybody_and_the_hosts_file_is_not() {
        let dir = payload();
        let archive = tar(dir.path(), Some("127.0.0.1 localhost\n"), true).unwrap();
        let mut archive = tar::Archive::new(&archive[..]);
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|e| e.unwrap())
            .map(|e| (e.path().unwrap().display().to_string(), e.header().mode().unwrap()))
            .collect();
        let expected = [(".abicus/", 0o755), (".abicus/kernel", 0o755), (".abicus/libc", 0o755), ("etc/hosts", 0o644)];
        assert_eq!(entries, expected.map(|(path, mode)| (path.to_owned(), mode)));
    }

    #[test]
    fn a_payload_that_others_cannot_execute_is_not_bound() {
        let dir = payload();
        let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        mode(&dir.path().join("kernel"), 0o755);
        mode(&dir.path().join("libc"), 0o755);
        mode(dir.path(), 0o700);
        assert!(!open_to_all(dir.path()).unwrap());
        mode(dir.path(), 0o755);
        assert!(open_to_all(dir.path()).unwrap());
        mode(&dir.path().join("libc"), 0o750);
        assert!(!open_to_all(dir.path()).unwrap());
    }
}
