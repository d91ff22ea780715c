//! No engine: the program runs straight on this machine, with no image.
//!
//! In: a job. Out: an attempt. The payload's paths in the job are rewritten to where it lies on the host. Deadline, caps and
//! the end of all descendants are the launcher's, as in the built-in engine; namespaces, mounts and policy there are none.

use std::path::Path;

use async_trait::async_trait;

use super::builtin::Place;
use super::builtin::launch::{Launch, launch};
use super::builtin::list::{List, stage};
use super::{Attempt, Engine, Facts, Job, PAYLOAD_DIR, Prepared};
use crate::fault::{Fault, Phase};
use crate::id::RunId;
use crate::image::Image;

/// The engine; see the module.
pub struct Native {
    place: Place,
}

/// What a program may know about who started abicus: enough to find its way, and the same for every run.
const ENVIRONMENT: [&str; 8] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

const HERE: &str = "host";

impl Native {
    /// `work` is a directory of its own, made where it is missing, whose file system must allow execution.
    pub fn new(work: &Path) -> Result<Self, Fault> {
        Ok(Self { place: Place::make(work)? })
    }
}

/// The loader that runs this machine's own dynamic programs, for the libc probe.
pub fn host_loader() -> Option<&'static str> {
    let known: [&str; 4] = match std::env::consts::ARCH {
        "x86_64" => [
            "/lib64/ld-linux-x86-64.so.2",
            "/lib/ld-musl-x86_64.so.1",
            "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
            "/lib/ld-linux-x86-64.so.2",
        ],
        _ => [
            "/lib/ld-linux-aarch64.so.1",
            "/lib/ld-musl-aarch64.so.1",
            "/lib64/ld-linux-aarch64.so.1",
            "/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1",
        ],
    };
    known.into_iter().find(|path| Path::new(path).exists())
}

/// A path of the cell as the host knows it.
fn on_the_host(argument: &str, payload: &str) -> String {
    match argument.strip_prefix(PAYLOAD_DIR) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{payload}{rest}"),
        _ => argument.to_owned(),
    }
}

fn list(job: &Job) -> Result<List, Fault> {
    let Some(payload) = job.payload.dir.to_str() else {
        return Err(Fault::new(Phase::Inject, format!("{}: not UTF-8", job.payload.dir.display())));
    };
    let argv: Vec<String> = job.argv.iter().map(|argument| on_the_host(argument, payload)).collect();
    let name = argv.first().map_or("", String::as_str);
    let search = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
    let paths: Vec<String> = if name.contains('/') {
        vec![name.to_owned()]
    } else {
        search.split(':').map(|dir| format!("{dir}/{name}")).collect()
    };
    let variable = |name: &&str| std::env::var(name).ok().map(|value| format!("{name}={value}"));
    let environment: Vec<String> = ENVIRONMENT.iter().filter_map(variable).collect();
    let mut list = List::new();
    list.stage(stage::BEFORE).adopt().stage(stage::INSIDE).setsid().chdir("/").stdin("/dev/null");
    list.exec(&paths, &argv, &environment);
    Ok(list)
}

#[async_trait]
impl Engine for Native {
    async fn fingerprint(&self) -> Result<Facts, Fault> {
        Ok(Facts::from([("engine.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]))
    }

    async fn prepare(&self, _: &Image) -> Result<Prepared, Fault> {
        Ok(Prepared(HERE.to_owned()))
    }

    async fn run(&self, job: &Job, _: &Prepared) -> Attempt {
        let list = match list(job) {
            Ok(list) => list,
            Err(fault) => return Attempt::broken(fault),
        };
        let launcher = self.place.launcher.as_path();
        launch(&Launch { launcher, list: &list, deadline: job.deadline, cap: job.output_cap }).await.0
    }

    /// What a native job starts dies with the launcher; it makes nothing else.
    async fn sweep(&self, _: Option<&RunId>) -> Result<Vec<String>, Fault> {
        Ok(vec![])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_the_payload_are_rewritten() {
        assert_eq!(on_the_host("/.abicus/kernel", "/p"), "/p/kernel");
        assert_eq!(on_the_host("/.abicus", "/p"), "/p");
        assert_eq!(on_the_host("/.abicuses/kernel", "/p"), "/.abicuses/kernel");
        assert_eq!(on_the_host("--only", "/p"), "--only");
    }

    #[test]
    fn this_machine_has_a_loader() {
        assert!(host_loader().is_some());
    }
}
