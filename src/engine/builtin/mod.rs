//! The built-in engine: cells from namespaces, overlayfs, capabilities and a seccomp filter, with nothing installed.
//!
//! In: a flattened tree (or nothing), a job. Out: an attempt. As root, and as an ordinary user where the host allows user
//! namespaces. Its default policy is docker's. Everything that needs unsafe code is done by the launcher, a static program
//! beside the probes: this room decides, the launcher does. Lost against docker: no device control group, no AppArmor or
//! SELinux label; a user without subordinate ids has one user in the cell; limits need a control group we may write to.

mod abilities;
mod capabilities;
mod cgroup;
pub(super) mod launch;
pub(super) mod list;
mod place;
mod policy;
mod seccomp;
mod settings;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::OnceCell;

use crate::engine::options::Seccomp;
use crate::engine::{Attempt, Ended, Engine, EngineOptions, Facts, Job, Prepared};
use crate::fault::{Fault, Phase};
use crate::host::{Reach, Site};
use crate::id::RunId;
use crate::image::{Content, Image};

use abilities::{Finding, Identity, Maps};
use capabilities::Capabilities;
use cgroup::{Cgroups, oom_kills};
use launch::{Launch, launch};
use list::List;
use policy::{Cell, Root};
use settings::{Settings, User, look_up, refused};

/// Largest profile or passwd read.
const MAX_TEXT: u64 = 1 << 20;

/// The engine; see the module.
pub struct BuiltIn {
    settings: Settings,
    reach: Arc<dyn Reach>,
    ground: OnceCell<Ground>,
    findings: OnceCell<Vec<Finding>>,
    /// Trees on the host, and what of this machine they are copies of.
    trees: Mutex<HashMap<String, PathBuf>>,
    counter: AtomicU64,
}

/// What the host has to offer, asked once.
struct Ground {
    site: Site,
    identity: Identity,
    filter: Option<Vec<u8>>,
    cgroups: Cgroups,
    host_devices: Vec<(String, u64, u64)>,
    resolv_conf: Vec<u8>,
}

impl BuiltIn {
    /// An engine with these options on a host. Nothing is asked of the host yet.
    pub fn new(options: &EngineOptions, reach: Arc<dyn Reach>) -> Result<Self, Fault> {
        let profile = match &options.seccomp {
            Some(Seccomp::File(path)) => Some(
                place::read_text(path, MAX_TEXT)
                    .map_err(|e| refused(format!("option `seccomp`: {}: {e}", path.display())))?,
            ),
            _ => None,
        };
        Ok(Self {
            settings: Settings::new(options, profile.as_deref())?,
            reach,
            ground: OnceCell::new(),
            findings: OnceCell::new(),
            trees: Mutex::default(),
            counter: AtomicU64::new(0),
        })
    }

    async fn ground(&self) -> Result<&Ground, Fault> {
        self.ground.get_or_try_init(|| self.look()).await
    }

    async fn look(&self) -> Result<Ground, Fault> {
        const MAX_RESOLV_CONF: usize = 64 << 10;
        let reach = &*self.reach;
        let site = reach.site().await?;
        let identity = Identity::find(self.settings.userns, reach, &site).await?;
        let privileged = self.settings.privileged;
        Ok(Ground {
            filter: policy::filter(&self.settings, &identity)?,
            identity,
            cgroups: Cgroups::discover(reach, &site).await,
            host_devices: if privileged { place::device_nodes(reach, "/dev").await } else { vec![] },
            resolv_conf: reach.read("/etc/resolv.conf", MAX_RESOLV_CONF).await.unwrap_or_default(),
            site,
        })
    }

    async fn findings(&self, ground: &Ground) -> &[Finding] {
        let try_out = || abilities::try_out(&self.reach, &ground.identity, &ground.site, &ground.cgroups);
        self.findings.get_or_init(try_out).await
    }

    fn user(&self, root: &Root) -> Result<(u32, u32), Fault> {
        let name = match &self.settings.user {
            User::Ids(uid, gid) => return Ok((*uid, *gid)),
            User::Named(name) => name,
        };
        let passwd = match root {
            Root::Empty => String::new(),
            Root::Tree(there) => {
                let trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
                let tree = trees.get(there).cloned().unwrap_or_else(|| PathBuf::from(there));
                place::read_inside(&tree, "etc", "passwd", MAX_TEXT)
                    .map_err(|e| Fault::new(Phase::Create, format!("/etc/passwd of the image: {e}")))?
            }
        };
        look_up(&passwd, name).ok_or_else(|| {
            Fault::new(Phase::Create, format!("option `user`: the image has no user `{name}`"))
                .hint("give a number instead, such as \"1000:1000\"")
        })
    }

    /// The launcher and the bytes it is handed for a job: what is needed to repeat the job by hand, or to measure what
    /// the driver adds to it (`launch LIST 2 -`).
    pub async fn operations(&self, job: &Job, image: &Prepared) -> Result<(PathBuf, Vec<u8>), Fault> {
        let ground = self.ground().await?;
        let (list, _) = self.list(ground, job, image).await?;
        let bytes = list.finish().map_err(|e| Fault::new(Phase::Create, e))?;
        Ok((PathBuf::from(&ground.site.launcher), bytes))
    }

    /// The list for a job, and the capabilities asked for that this host has not.
    async fn list(&self, ground: &Ground, job: &Job, image: &Prepared) -> Result<(List, Capabilities), Fault> {
        let root = Root::try_from(image)?;
        let payload = self.reach.put(&job.payload.dir, &job.payload.digest).await?;
        let cell = Cell {
            settings: &self.settings,
            identity: &ground.identity,
            root: &root,
            filter: ground.filter.as_deref(),
            user: self.user(&root)?,
            mount_point: &ground.site.mount_point,
            payload: &payload,
            argv: &job.argv,
            host_devices: &ground.host_devices,
            resolv_conf: &ground.resolv_conf,
        };
        let mut list = policy::list(&cell)?;
        let name = format!("{}.{}.{}", job.run, std::process::id(), self.counter.fetch_add(1, Ordering::Relaxed));
        ground.cgroups.limit(&mut list, &name, &self.settings.limits).map_err(|why| {
            Fault::new(Phase::Create, why)
                .hint("limits of the built-in engine need root, or a control group to write to")
        })?;
        let permitted = policy::permitted(&self.settings, &ground.identity);
        Ok((list, Capabilities(self.settings.capabilities.0 & !permitted.0)))
    }

    async fn attempt(&self, job: &Job, image: &Prepared) -> Result<Attempt, Fault> {
        let ground = self.ground().await?;
        abilities::verdict(&*self.reach, self.findings(ground).await).await?;
        let (list, lacking) = self.list(ground, job, image).await?;
        let reach = &*self.reach;
        let (mut attempt, told) =
            launch(&Launch { reach, list: &list, deadline: job.deadline, cap: job.output_cap }).await;
        let oom = told.reports.iter().filter(|(key, _)| key == "oom").find_map(|(_, text)| oom_kills(text));
        attempt.ended = self.explain(attempt.ended, oom);
        if lacking.0 != 0 {
            let names: Vec<_> = lacking.names().collect();
            attempt.notes.push(format!("this host has no {} to give", names.join(", ")));
        }
        Ok(attempt)
    }

    /// The first process of a cell cannot be killed from inside it by SIGKILL.
    fn explain(&self, ended: Result<Ended, Fault>, oom: Option<u64>) -> Result<Ended, Fault> {
        const RLIMIT_CPU: u64 = 0;
        let cpu_limited = self.settings.ulimits.iter().any(|(resource, ..)| *resource == RLIMIT_CPU);
        match ended {
            Ok(Ended::Signal(9)) if oom.is_some_and(|kills| kills > 0) => Ok(Ended::OutOfMemory),
            Ok(Ended::Signal(9)) if !cpu_limited => {
                Err(Fault::new(Phase::Wait, "the cell was killed from outside (signal 9)").transient())
            }
            other => other,
        }
    }
}

const EMPTY: &str = "empty";
const TREE: &str = "tree:";

impl TryFrom<&Prepared> for Root {
    type Error = Fault;
    fn try_from(prepared: &Prepared) -> Result<Self, Fault> {
        match (prepared.0.as_str(), prepared.0.strip_prefix(TREE)) {
            (EMPTY, _) => Ok(Self::Empty),
            (_, Some(tree)) => Ok(Self::Tree(tree.to_owned())),
            (other, None) => Err(Fault::new(Phase::Prepare, format!("`{other}` was prepared by another engine"))),
        }
    }
}

#[async_trait]
impl Engine for BuiltIn {
    async fn fingerprint(&self) -> Result<Facts, Fault> {
        let ground = self.ground().await?;
        let findings = self.findings(ground).await;
        abilities::verdict(&*self.reach, findings).await?;
        let mut facts = Facts::from([
            ("engine.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("engine.identity".to_owned(), identity_text(&ground.identity.maps).to_owned()),
            ("engine.cgroup".to_owned(), format!("v{}", ground.cgroups.version)),
            ("engine.seccomp".to_owned(), self.settings.seccomp_name.clone()),
        ]);
        for finding in findings {
            let says = finding.works.as_ref().map_or_else(|why| format!("no: {why}"), |()| "yes".to_owned());
            facts.insert(format!("engine.can.{}", finding.name.replace(' ', "-")), says);
        }
        Ok(facts)
    }

    async fn prepare(&self, image: &Image) -> Result<Prepared, Fault> {
        match &image.content {
            Content::Empty => Ok(Prepared(EMPTY.to_owned())),
            Content::Tree(tree) => {
                let there = self.reach.put(tree, &image.digest).await?;
                let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
                trees.insert(there.clone(), tree.clone());
                Ok(Prepared(format!("{TREE}{there}")))
            }
            Content::Reference(reference) => {
                let cause = format!("`{reference}` is known to other engines only: the built-in one needs a tree");
                Err(Fault::new(Phase::Prepare, cause).hint("give the image as archive, layout, rootfs or bootstrap"))
            }
        }
    }

    async fn run(&self, job: &Job, image: &Prepared) -> Attempt {
        self.attempt(job, image).await.unwrap_or_else(Attempt::broken)
    }

    /// Cells die with the launcher and mounts with the cells; what can stay behind is an empty control group.
    async fn sweep(&self, run: Option<&RunId>) -> Result<Vec<String>, Fault> {
        let prefix = run.map(|run| format!("{run}.")).unwrap_or_default();
        let ground = self.ground().await?;
        let removed = ground.cgroups.sweep(&*self.reach, &ground.site, &prefix).await;
        Ok(removed.into_iter().map(|dir| format!("control group {dir}")).collect())
    }
}

fn identity_text(maps: &Maps) -> &'static str {
    match maps {
        Maps::None => "root",
        Maps::Own { .. } => "user namespace, one id",
        Maps::All => "user namespace of root",
        Maps::Ranges { .. } => "user namespace, subordinate ids",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_prepared_is_read_back_and_nothing_else() {
        assert_eq!(Root::try_from(&Prepared("empty".into())), Ok(Root::Empty));
        assert_eq!(Root::try_from(&Prepared("tree:/a b".into())), Ok(Root::Tree("/a b".into())));
        assert!(Root::try_from(&Prepared("sha256:00".into())).is_err());
    }
}
