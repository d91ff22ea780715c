//! No engine: the program runs straight on the host, with no image.
//!
//! In: a job. Out: an attempt. The payload's paths in the job are rewritten to where it lies on the host. Deadline, caps and
//! the end of all descendants are the launcher's, as in the built-in engine; namespaces, mounts and policy there are none.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::builtin::launch::{Launch, launch};
use super::builtin::list::{List, stage};
use super::{Attempt, Engine, Facts, Job, PAYLOAD_DIR, Prepared};
use crate::fault::Fault;
use crate::host::Reach;
use crate::id::RunId;
use crate::image::Image;

/// The engine; see the module.
pub struct Native {
    reach: Arc<dyn Reach>,
    environment: OnceCell<Vec<String>>,
}

/// What a program may know about who started abicus: enough to find its way, and the same for every run.
const ENVIRONMENT: [&str; 8] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

const HERE: &str = "host";

impl Native {
    /// Programs straight on this host.
    pub fn new(reach: Arc<dyn Reach>) -> Self {
        Self { reach, environment: OnceCell::new() }
    }

    /// The part of the environment that whoever reached the host has there.
    async fn environment(&self) -> &[String] {
        const MOST: usize = 256 << 10;
        let read = || async {
            let bytes = self.reach.read("/proc/self/environ", MOST).await.unwrap_or_default();
            environment(&String::from_utf8_lossy(&bytes))
        };
        self.environment.get_or_init(read).await
    }

    async fn attempt(&self, job: &Job) -> Result<Attempt, Fault> {
        let payload = self.reach.put(&job.payload.dir, &job.payload.digest).await?;
        let list = list(&job.argv, &payload, self.environment().await);
        let reach = &*self.reach;
        Ok(launch(&Launch { reach, list: &list, deadline: job.deadline, cap: job.output_cap }).await.0)
    }
}

/// The variables worth keeping, in a fixed order, of the text of `/proc/PID/environ`.
fn environment(text: &str) -> Vec<String> {
    let variable = |name: &&str| {
        let known = text.split('\0').find(|word| word.split_once('=').is_some_and(|(key, _)| key == *name));
        known.map(str::to_owned)
    };
    ENVIRONMENT.iter().filter_map(variable).collect()
}

/// A path of the cell as the host knows it.
fn on_the_host(argument: &str, payload: &str) -> String {
    match argument.strip_prefix(PAYLOAD_DIR) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{payload}{rest}"),
        _ => argument.to_owned(),
    }
}

fn list(argv: &[String], payload: &str, environment: &[String]) -> List {
    let argv: Vec<String> = argv.iter().map(|argument| on_the_host(argument, payload)).collect();
    let name = argv.first().map_or("", String::as_str);
    let search = environment.iter().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or("/usr/bin:/bin");
    let paths: Vec<String> = if name.contains('/') {
        vec![name.to_owned()]
    } else {
        search.split(':').map(|dir| format!("{dir}/{name}")).collect()
    };
    let mut list = List::new();
    list.stage(stage::BEFORE).adopt().stage(stage::INSIDE).setsid().chdir("/").stdin("/dev/null");
    list.exec(&paths, &argv, environment);
    list
}

#[async_trait]
impl Engine for Native {
    async fn fingerprint(&self) -> Result<Facts, Fault> {
        self.reach.site().await?;
        Ok(Facts::from([("engine.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]))
    }

    async fn prepare(&self, _: &Image) -> Result<Prepared, Fault> {
        Ok(Prepared(HERE.to_owned()))
    }

    async fn run(&self, job: &Job, _: &Prepared) -> Attempt {
        self.attempt(job).await.unwrap_or_else(Attempt::broken)
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
    fn the_environment_is_the_part_that_matters_in_a_fixed_order() {
        let text = "HOME=/h\0SECRET=x\0PATH=/a:/b=c\0PATHS=no\0";
        assert_eq!(environment(text), ["PATH=/a:/b=c", "HOME=/h"]);
    }
}
