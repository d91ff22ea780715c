//! The built-in engine: cells from namespaces, overlayfs, capabilities and a seccomp filter, with nothing installed.
//!
//! In: a flattened tree (or nothing), a job. Out: an attempt. As root, and as an ordinary user where the host allows user
//! namespaces. Its default policy is docker's. Everything that needs unsafe code is done by the launcher, a static program
//! beside the probes: this room decides, the launcher does. Lost against docker: no device control group, no AppArmor or
//! SELinux label; a user without subordinate ids has one user in the cell; limits need a control group we may write to.

pub(super) mod abilities;
pub(super) mod capabilities;
pub(super) mod cgroup;
pub(super) mod ground;
pub(crate) mod launch;
pub(crate) mod list;
mod place;
pub(super) mod policy;
pub(super) mod seccomp;
pub(super) mod settings;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use crate::engine::options::Seccomp;
use crate::engine::{Attempt, Ended, Engine, EngineOptions, Facts, Job, Prepared};
use crate::fault::{Fault, Phase};
use crate::host::{PerSite, Reach};
use crate::id::RunId;
use crate::image::Image;

use abilities::{Finding, Maps};
use capabilities::Capabilities;
use cgroup::{Cgroups, oom_kills};
use ground::{Ground, Trees};
use launch::{Launch, launch};
use list::List;
use policy::{Cell, STORAGE};
use settings::{BUILT_IN, Settings, refused};

/// Largest profile read.
const MAX_PROFILE: u64 = 1 << 20;

/// The engine; see the module.
pub struct BuiltIn {
    settings: Settings,
    reach: Arc<dyn Reach>,
    ground: PerSite<Ground>,
    findings: PerSite<Vec<Finding>>,
    trees: Trees,
}

impl BuiltIn {
    /// An engine with these options on a host. Nothing is asked of the host yet.
    pub fn new(options: &EngineOptions, reach: Arc<dyn Reach>) -> Result<Self, Fault> {
        Ok(Self {
            settings: Settings::new(options, profile_text(options)?.as_deref(), &BUILT_IN)?,
            reach,
            ground: PerSite::new(),
            findings: PerSite::new(),
            trees: Trees::default(),
        })
    }

    async fn ground(&self) -> Result<Arc<Ground>, Fault> {
        let dir = self.reach.site().await?.dir;
        self.ground.get(&dir, || Ground::look(&*self.reach, &self.settings)).await
    }

    async fn findings(&self, ground: &Ground) -> Result<Arc<Vec<Finding>>, Fault> {
        let try_out =
            || async { Ok(abilities::try_out(&self.reach, &ground.identity, &ground.site, &ground.cgroups).await) };
        self.findings.get(&ground.site.dir, try_out).await
    }

    /// The launcher and the bytes it is handed for a job: what is needed to repeat the job by hand, or to measure what
    /// the driver adds to it (`launch LIST 2 -`).
    pub async fn operations(&self, job: &Job, image: &Prepared) -> Result<(PathBuf, Vec<u8>), Fault> {
        let ground = self.ground().await?;
        let (list, _) = self.list(&ground, job, image).await?;
        let bytes = list.finish().map_err(|e| Fault::new(Phase::Create, e))?;
        Ok((PathBuf::from(&ground.site.launcher), bytes))
    }

    /// The list for a job, and the capabilities asked for that this host has not.
    async fn list(&self, ground: &Ground, job: &Job, image: &Prepared) -> Result<(List, Capabilities), Fault> {
        let root = self.trees.root(&*self.reach, image).await?;
        let payload = self.reach.put(&job.payload.dir, &job.payload.digest).await?;
        let cell = Cell {
            settings: &self.settings,
            identity: &ground.identity,
            root: &root,
            filter: ground.filter.as_deref(),
            user: self.trees.user(&self.settings.user, &root)?,
            mount_point: &ground.site.mount_point,
            payload: &payload,
            argv: &job.argv,
            host_devices: &ground.host_devices,
            resolv_conf: &ground.resolv_conf,
        };
        let mut list = policy::list(&cell)?;
        ground.cgroups.limit(&mut list, &Cgroups::name(&job.run), &self.settings.limits).map_err(|why| {
            Fault::new(Phase::Create, why)
                .hint("limits of the built-in engine need root, or a control group to write to")
        })?;
        let permitted = policy::permitted(&self.settings, &ground.identity);
        Ok((list, Capabilities(self.settings.capabilities.0 & !permitted.0)))
    }

    async fn attempt(&self, job: &Job, image: &Prepared) -> Result<Attempt, Fault> {
        let ground = self.ground().await?;
        abilities::verdict(&*self.reach, &self.findings(&ground).await?).await?;
        let (list, lacking) = self.list(&ground, job, image).await?;
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

/// The text of the profile file, where the options name one.
pub(super) fn profile_text(options: &EngineOptions) -> Result<Option<String>, Fault> {
    let Some(Seccomp::File(path)) = &options.seccomp else { return Ok(None) };
    let text = place::read_text(path, MAX_PROFILE);
    text.map(Some).map_err(|e| refused(format!("option `seccomp`: {}: {e}", path.display())))
}

#[async_trait]
impl Engine for BuiltIn {
    async fn fingerprint(&self) -> Result<Facts, Fault> {
        let ground = self.ground().await?;
        let findings = self.findings(&ground).await?;
        abilities::verdict(&*self.reach, &findings).await?;
        let mut facts = Facts::from([
            ("engine.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("engine.identity".to_owned(), identity_text(&ground.identity.maps).to_owned()),
            ("engine.cgroup.version".to_owned(), ground.cgroups.version.to_string()),
            ("engine.seccomp".to_owned(), self.settings.seccomp_name.clone()),
        ]);
        facts.extend(STORAGE.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for finding in &*findings {
            let says = finding.works.as_ref().map_or_else(|why| format!("no: {why}"), |()| "yes".to_owned());
            facts.insert(format!("engine.can.{}", finding.name.replace(' ', "-")), says);
        }
        Ok(facts)
    }

    async fn prepare(&self, image: &Image) -> Result<Prepared, Fault> {
        self.trees.prepare(&*self.reach, image, BUILT_IN.engine).await
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

pub(super) fn identity_text(maps: &Maps) -> &'static str {
    match maps {
        Maps::None => "root",
        Maps::Own { .. } => "user namespace, one id",
        Maps::All => "user namespace of root",
        Maps::Ranges { .. } => "user namespace, subordinate ids",
    }
}
