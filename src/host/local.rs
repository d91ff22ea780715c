//! This machine: the identity among the ways to reach a host.
//!
//! In: a directory of abicus' own. Out: files as they are, a launcher as a child. Nothing here is made per cell.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use super::limits;
use super::reach::{Launched, Process, Reach, Reader, Site, Stat, Writer};
use crate::fault::{Fault, Phase};
use crate::probes;

/// This machine; see the module.
#[derive(Debug)]
pub struct Local {
    work: PathBuf,
    site: OnceCell<Site>,
}

impl Local {
    /// `work` is a directory of its own, made where it is missing, whose file system must allow execution. Engines and
    /// processes may share it.
    pub fn at(work: impl Into<PathBuf>) -> Self {
        Self { work: work.into(), site: OnceCell::new() }
    }

    fn look(&self) -> Result<Site, Fault> {
        let (dir, launcher, mount_point) = place(&self.work)?;
        let uname = rustix::system::uname();
        Ok(Site {
            kernel_release: uname.release().to_string_lossy().into_owned(),
            kernel_version: uname.version().to_string_lossy().into_owned(),
            machine: uname.machine().to_string_lossy().into_owned(),
            page_size: rustix::param::page_size() as u64,
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            dir: text(&dir)?,
            launcher: text(&launcher)?,
            mount_point: text(&mount_point)?,
        })
    }
}

fn text(path: &Path) -> Result<String, Fault> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Fault::new(Phase::Host, format!("{}: not UTF-8", path.display())))
}

/// Directory, launcher and mount point, made where they are missing.
fn place(work: &Path) -> Result<(PathBuf, PathBuf, PathBuf), Fault> {
    let fault = |path: &Path, e: io::Error| Fault::new(Phase::Host, format!("{}: {e}", path.display()));
    if probes::LAUNCH.is_empty() {
        return Err(Fault::new(Phase::Host, "this build of abicus has no launcher"));
    }
    fs::create_dir_all(work.join("mnt")).map_err(|e| fault(work, e))?;
    let work = fs::canonicalize(work).map_err(|e| fault(work, e))?;
    let digest = probes::digest(probes::LAUNCH);
    let launcher = work.join(format!("launch-{}", digest.get(..16).unwrap_or(&digest)));
    if fs::read(&launcher).ok().as_deref() != Some(probes::LAUNCH) {
        write_program(&launcher, &work).map_err(|e| fault(&launcher, e))?;
    }
    Ok((work.clone(), launcher, work.join("mnt")))
}

/// Under another name first, so that nobody executes half a program.
fn write_program(path: &Path, dir: &Path) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(probes::LAUNCH)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o755))?;
    file.persist(path).map(drop).map_err(|e| e.error)
}

impl From<fs::Metadata> for Stat {
    fn from(about: fs::Metadata) -> Self {
        Self { mode: about.mode(), device: about.rdev() }
    }
}

#[async_trait]
impl Process for Child {
    async fn gone(&mut self) {
        let _ = self.wait().await;
    }

    fn kill(&mut self) {
        let _ = self.start_kill();
    }
}

#[async_trait]
impl Reach for Local {
    async fn site(&self) -> Result<Site, Fault> {
        self.site.get_or_try_init(|| async { self.look() }).await.cloned()
    }

    async fn read(&self, path: &str, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![];
        fs::File::open(path)?.take(most as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    async fn stat(&self, path: &str) -> io::Result<Stat> {
        fs::metadata(path).map(Stat::from)
    }

    async fn list(&self, dir: &str) -> io::Result<Vec<(String, Stat)>> {
        let mut found = vec![];
        for entry in fs::read_dir(dir)?.flatten() {
            let (Ok(about), Some(name)) = (entry.metadata(), entry.file_name().to_str().map(str::to_owned)) else {
                continue;
            };
            found.push((name, Stat::from(about)));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    async fn put(&self, tree: &Path, _: &str) -> Result<String, Fault> {
        let tree =
            fs::canonicalize(tree).map_err(|e| Fault::new(Phase::Prepare, format!("{}: {e}", tree.display())))?;
        text(&tree)
    }

    async fn launch(&self, list: &[u8]) -> Result<Launched, Fault> {
        let (mut child, stream) = start(Path::new(&self.site().await?.launcher)).await?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Fault::new(Phase::Create, "the launcher has no output"));
        };
        // It does nothing before it has its list.
        limits::as_given(child.id());
        let (told, mut lifeline) = stream.into_split();
        // A launcher that died early shows up as the end of what it tells.
        let _ = lifeline.write_all(list).await;
        Ok(Launched {
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            told: Box::new(told),
            // Dropping the half shuts the socket down for writing.
            lifeline: Box::new(lifeline),
            process: Box::new(child),
        })
    }

    async fn connect(&self, socket: &str) -> io::Result<(Reader, Writer)> {
        let (reader, writer) = UnixStream::connect(socket).await?.into_split();
        Ok((Box::new(reader), Box::new(writer)))
    }

    fn is_here(&self) -> bool {
        true
    }
}

/// One socket carries the list to the launcher, the launcher's lines back, and, by staying open, the news that the driver
/// lives. So starting a cell needs no code between fork and exec.
async fn start(launcher: &Path) -> Result<(Child, UnixStream), Fault> {
    let fault = |what: &str, e: io::Error| Fault::new(Phase::Create, format!("{what}: {e}")).transient();
    const ETXTBSY: i32 = 26;
    let mut tries = 0;
    loop {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(|e| fault("making a socket", e))?;
        ours.set_nonblocking(true).map_err(|e| fault("making a socket", e))?;
        let spawned = Command::new(launcher)
            .args(["0", "0", "0"])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_clear()
            // Ctrl-C at a terminal goes to the driver, which ends its cells in order.
            .process_group(0)
            .spawn();
        match spawned {
            Ok(child) => return UnixStream::from_std(ours).map(|s| (child, s)).map_err(|e| fault("a socket", e)),
            // Another thread's fork still holds the descriptor by which the launcher was written.
            Err(e) if e.raw_os_error() == Some(ETXTBSY) && tries < 50 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Fault::new(Phase::Create, format!("executing {}: {e}", launcher.display()))
                    .hint("its file system may be mounted noexec: choose another directory for abicus' files"));
            }
            Err(e) => return Err(fault(&format!("executing {}", launcher.display()), e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_launcher_is_put_in_place_once_and_repaired_when_damaged() {
        let work = tempfile::tempdir().unwrap();
        let site = Local::at(work.path()).site().await.unwrap();
        assert_eq!(fs::read(&site.launcher).unwrap(), probes::LAUNCH);
        fs::write(&site.launcher, b"damaged").unwrap();
        assert_eq!(fs::read(Local::at(work.path()).site().await.unwrap().launcher).unwrap(), probes::LAUNCH);
    }

    #[tokio::test]
    async fn what_is_read_is_the_start_of_a_file_and_what_is_listed_is_sorted() {
        let work = tempfile::tempdir().unwrap();
        let local = Local::at(work.path());
        assert_eq!(local.read("/dev/zero", 3).await.unwrap(), [0; 3]);
        assert!(local.read("/no/such", 3).await.is_err());
        let dev = local.list("/dev").await.unwrap();
        assert!(dev.is_sorted_by_key(|(name, _)| name.clone()));
        let null = dev.iter().find(|(name, _)| name == "null").unwrap().1;
        assert!(null.is_device() && null.device == 0x103 && !null.is_dir(), "{null:?}");
    }
}
