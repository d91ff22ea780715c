//! Engines that are a command: OCI runtimes without a daemon, bubblewrap, systemd-nspawn, apptainer.
//!
//! In: a flattened tree (or nothing), a job. Out: an attempt. A cell is one list for the launcher: a frame of namespaces
//! and mounts of its own ([`frame`]), and in it the command, as its first process ([`line`]). So nothing is left of a cell
//! whatever happens to it: bundle, root and the runtime's state are on a tmpfs of the frame, and with the command dies
//! whatever it started. What can stay behind are empty control groups. The image is only read.

mod apptainer;
mod bubblewrap;
mod frame;
mod line;
mod nspawn;
mod oci;
mod quirks;
mod said;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::OnceCell;

use crate::engine::builtin::abilities::Maps;
use crate::engine::builtin::capabilities::Capabilities;
use crate::engine::builtin::cgroup::{Cgroups, Controller, oom_kills};
use crate::engine::builtin::ground::{Ground, Trees, empty};
use crate::engine::builtin::launch::{Launch, Told, launch};
use crate::engine::builtin::list::{List, stage};
use crate::engine::builtin::policy::{PATH, STORAGE, permitted};
use crate::engine::builtin::settings::{Settings, Userns, refused};
use crate::engine::builtin::{identity_text, profile_text};
use crate::engine::{Attempt, Ended, Engine, EngineOptions, Facts, Job, PAYLOAD_DIR, Prepared};
use crate::fault::{Fault, Phase};
use crate::host::{PerSite, Reach, text};
use crate::id::RunId;
use crate::image::Image;

use line::Cell;
pub use line::Kind;
use said::Version;

/// A device node: path in the cell, mode with type, number.
type Device = (String, u64, u64);

/// The engine; see the module.
pub struct Command {
    kind: Kind,
    /// Where the program may be, in order.
    programs: Vec<String>,
    options: EngineOptions,
    settings: Settings,
    reach: Arc<dyn Reach>,
    ground: PerSite<Ground>,
    /// The options' devices as the host has them.
    devices: OnceCell<Vec<Device>>,
    trees: Trees,
    version: OnceCell<Version>,
    canary: OnceCell<()>,
}

impl Command {
    /// An engine with these options on a host; `program` is the name or path of the command where it is not the kind's
    /// own. Nothing is asked of the host yet.
    pub fn new(
        kind: Kind,
        program: Option<&str>,
        options: &EngineOptions,
        reach: Arc<dyn Reach>,
    ) -> Result<Self, Fault> {
        let mut settings = Settings::new(options, profile_text(options)?.as_deref(), &kind.manner())?;
        kind.check(options)?;
        if kind == Kind::Oci {
            // The runtime makes it, which it says in the bundle: one that is started inside takes itself for root.
            settings.userns = Userns::AsNeeded;
        }
        Ok(Self {
            programs: search(program.unwrap_or(kind.program())),
            options: options.clone(),
            settings,
            reach,
            ground: PerSite::new(),
            devices: OnceCell::new(),
            trees: Trees::default(),
            version: OnceCell::new(),
            canary: OnceCell::new(),
            kind,
        })
    }

    async fn ground(&self) -> Result<Arc<Ground>, Fault> {
        let dir = self.reach.site().await?.dir;
        let look = || async {
            let ground = Ground::look(&*self.reach, &self.settings).await?;
            self.kind.check_host(&self.options, &ground.identity)?;
            self.check_modules().await?;
            Ok(ground)
        };
        self.ground.get(&dir, look).await
    }

    /// Refuses what the host's security modules would have to do, where it has them not.
    async fn check_modules(&self) -> Result<(), Fault> {
        let absent = |option: &str, module: &str, word: &str| {
            Err(refused(format!("option `{option}`: this host has no {module}"))
                .hint(format!("leave the option out, or write `{word}`")))
        };
        if self.options.selinux_label().is_some() && self.reach.stat("/sys/fs/selinux/enforce").await.is_err() {
            return absent("selinux", "SELinux", "disable");
        }
        if self.options.apparmor_profile().is_some()
            && text(&*self.reach, "/sys/module/apparmor/parameters/enabled").await.trim() != "Y"
        {
            return absent("apparmor", "AppArmor", "unconfined");
        }
        Ok(())
    }

    async fn devices(&self) -> Result<&Vec<Device>, Fault> {
        let look = || async {
            let mut devices = vec![];
            for (host, inside) in &self.settings.devices {
                let wrong = |why: String| refused(format!("option `devices`: {host}: {why}"));
                let about = self.reach.stat(host).await.map_err(|e| wrong(e.to_string()))?;
                if !about.is_device() {
                    return Err(wrong("not a device".to_owned()));
                }
                devices.push((inside.clone(), u64::from(about.mode), about.device));
            }
            Ok(devices)
        };
        self.devices.get_or_try_init(look).await
    }

    /// Asked once; what cannot say its version cannot be used.
    async fn version(&self) -> Result<&Version, Fault> {
        self.version.get_or_try_init(|| self.ask_version()).await
    }

    async fn ask_version(&self) -> Result<Version, Fault> {
        let mut list = List::new();
        list.stage(stage::BEFORE).adopt().stage(stage::INSIDE).setsid().stdin("/dev/null");
        let name = self.programs.first().map_or("", String::as_str);
        list.exec(&self.programs, &[name.to_owned(), "--version".to_owned()], &line::environment());
        let attempt = self.launch(&list, Duration::from_secs(20), 64 << 10).await.0;
        match attempt.ended {
            Ok(Ended::Exit(0)) => Ok(said::version(&String::from_utf8_lossy(&attempt.stdout))),
            Err(fault) if fault.phase == Phase::Start => Err(self.absent()),
            Err(fault) => Err(fault),
            Ok(other) => {
                let says = said::last_line(&attempt.stderr);
                Err(refused(format!("`{name} --version` ended with {other:?}: {says}")))
            }
        }
    }

    fn absent(&self) -> Fault {
        let name = self.programs.first().map_or("", |path| path.rsplit('/').next().unwrap_or(path));
        let tried = self.programs.join(", ");
        refused(format!("no program `{name}`: tried {tried}")).hint(self.kind.install(name))
    }

    async fn launch(&self, list: &List, deadline: Duration, cap: usize) -> (Attempt, Told) {
        launch(&Launch { reach: &*self.reach, list, deadline, cap }).await
    }

    /// The list for a program in a cell; `payload` is a directory on the host.
    async fn list(&self, run: &RunId, argv: &[String], payload: &str, image: &Prepared) -> Result<List, Fault> {
        let (ground, version) = (self.ground().await?, self.version().await?);
        let root = self.trees.root(&*self.reach, image).await?;
        let name = Cgroups::name(run);
        let cell = Cell {
            kind: self.kind,
            flavour: version.flavour(),
            programs: &self.programs,
            options: &self.options,
            settings: &self.settings,
            identity: &ground.identity,
            capabilities: permitted(&self.settings, &ground.identity),
            filter: ground.filter.as_deref(),
            root: &root,
            user: self.trees.user(&self.settings.user, &root)?,
            work: &ground.site.dir,
            mount_point: &ground.site.mount_point,
            payload,
            name: &name,
            argv,
            host_devices: &ground.host_devices,
            devices: self.devices().await?,
            resolv_conf: &ground.resolv_conf,
        };
        let mut list = frame::list(&cell)?;
        if !self.kind.makes_groups() {
            let limited = ground.cgroups.limit(&mut list, &name, &self.settings.limits);
            limited.map_err(|why| Fault::new(Phase::Create, why))?;
        } else if ground.identity.maps == Maps::None {
            ground.cgroups.remove(&mut list, &name);
        }
        Ok(list)
    }

    /// The launcher and the bytes it is handed for a job: what is needed to repeat the job by hand, or to measure what
    /// the driver adds to it (`launch LIST 2 -`).
    pub async fn operations(&self, job: &Job, image: &Prepared) -> Result<(PathBuf, Vec<u8>), Fault> {
        let payload = self.reach.put(&job.payload.dir, &job.payload.digest).await?;
        let list = self.list(&job.run, &job.argv, &payload, image).await?;
        let bytes = list.finish().map_err(|e| Fault::new(Phase::Create, e))?;
        Ok((PathBuf::from(&self.ground().await?.site.launcher), bytes))
    }

    /// Runs a list and says how it ended: a command that failed is told from a program that did.
    async fn attempt(&self, list: &List, program: &str, deadline: Duration, cap: usize) -> Attempt {
        let (mut attempt, told) = self.launch(list, deadline, cap).await;
        let log = told.reports.iter().find(|(key, _)| key == frame::LOG_KEY).map_or(&[][..], |(_, text)| text);
        attempt.ended = said::verdict(self.kind, attempt.ended, log, &attempt.stderr, program);
        // Where the group is ours it still counts when the command is gone; a runtime takes its own away, and what the
        // kernel killed in it looks like a program that exited with 137.
        let oom = told.reports.iter().filter(|(key, _)| key == "oom").find_map(|(_, text)| oom_kills(text));
        if oom.is_some_and(|kills| kills > 0) && attempt.ended == Ok(Ended::Exit(self.kind.killed())) {
            attempt.ended = Ok(Ended::OutOfMemory);
        }
        attempt
    }

    async fn job(&self, job: &Job, image: &Prepared) -> Result<Attempt, Fault> {
        let payload = self.reach.put(&job.payload.dir, &job.payload.digest).await?;
        let list = self.list(&job.run, &job.argv, &payload, image).await?;
        let program = job.argv.first().map_or("", String::as_str);
        let mut attempt = self.attempt(&list, program, job.deadline, job.output_cap).await;
        let flavour = self.version().await?.flavour();
        attempt.notes.extend(self.kind.ignores(flavour, &self.options));
        if flavour.may_wait_for_ever() && attempt.ended == Ok(Ended::Deadline) {
            attempt.notes.push(quirks::WAITS_FOR_EVER.to_owned());
        }
        let lacking = self.settings.capabilities.0 & !self.ground().await?.identity.capabilities.0;
        if lacking != 0 {
            let names: Vec<_> = Capabilities(lacking).names().collect();
            attempt.notes.push(format!("this host has no {} to give", names.join(", ")));
        }
        Ok(attempt)
    }

    async fn canary(&self, argv: &[String], dir: &str) -> Result<Attempt, Fault> {
        let list = self.list(&RunId::new(), argv, dir, &empty()).await?;
        Ok(self.attempt(&list, argv.first().map_or("", String::as_str), Duration::from_secs(15), 64 << 10).await)
    }

    /// A cell of the launcher itself, which says how it is used and exits 2: what the command needs is tried out, not
    /// guessed.
    async fn try_out(&self) -> Result<(), Fault> {
        let ground = self.ground().await?;
        let launcher = &ground.site.launcher;
        let (dir, program) = launcher.rsplit_once('/').unwrap_or(("/", launcher));
        let argv = [format!("{PAYLOAD_DIR}/{program}")];
        let mut attempt = self.canary(&argv, dir).await?;
        if attempt.ended == Ok(Ended::Deadline) && self.version().await?.flavour().may_wait_for_ever() {
            attempt = self.canary(&argv, dir).await?;
        }
        match attempt.ended {
            Ok(Ended::Exit(2)) => Ok(()),
            Ok(other) => {
                let says = said::last_line(&attempt.stderr);
                Err(refused(format!("a first cell ended with {other:?}: {says}")))
            }
            // The way to the host broke, which says nothing of the command.
            Err(fault) if fault.phase == Phase::Host => Err(fault),
            Err(fault) => Err(refused(fault.cause).hint(fault.hint.unwrap_or_else(|| self.kind.advice().to_owned()))),
        }
    }
}

/// Where a program can be, as execvp(3) looks for it.
fn search(name: &str) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    PATH.split(':').map(|dir| format!("{dir}/{name}")).collect()
}

#[async_trait]
impl Engine for Command {
    async fn fingerprint(&self) -> Result<Facts, Fault> {
        let ground = self.ground().await?;
        let version = self.version().await?;
        self.canary.get_or_try_init(|| self.try_out()).await?;
        let mut facts = Facts::from([
            ("engine.version".to_owned(), version.number.clone()),
            ("engine.identity".to_owned(), identity_text(&ground.identity.maps).to_owned()),
            ("engine.seccomp".to_owned(), self.settings.seccomp_name.clone()),
            ("engine.cgroup.version".to_owned(), ground.cgroups.version.to_string()),
        ]);
        facts.extend(STORAGE.map(|(name, value)| (name.to_owned(), value.to_owned())));
        if let Some(libseccomp) = &version.libseccomp {
            facts.insert("engine.libseccomp".to_owned(), libseccomp.clone());
        }
        if self.kind == Kind::Oci {
            facts.insert("engine.runtime".to_owned(), version.name.clone());
            facts.insert("engine.runtime.version".to_owned(), version.number.clone());
        }
        for controller in Controller::ALL {
            let can = self.kind.limits(&ground.identity).and_then(|()| ground.cgroups.can(controller));
            let says = can.map_or_else(|why| format!("no: {why}"), |()| "yes".to_owned());
            facts.insert(format!("engine.can.{}-limit", controller.name()), says);
        }
        Ok(facts)
    }

    async fn prepare(&self, image: &Image) -> Result<Prepared, Fault> {
        self.trees.prepare(&*self.reach, image, self.kind.name()).await
    }

    async fn run(&self, job: &Job, image: &Prepared) -> Attempt {
        self.job(job, image).await.unwrap_or_else(Attempt::broken)
    }

    /// Cells die with the launcher and mounts with the cells; what can stay behind is an empty control group.
    async fn sweep(&self, run: Option<&RunId>) -> Result<Vec<String>, Fault> {
        let prefix = run.map(|run| format!("{run}.")).unwrap_or_default();
        let ground = self.ground().await?;
        let removed = ground.cgroups.sweep(&*self.reach, &ground.site, &prefix).await;
        Ok(removed.into_iter().map(|dir| format!("control group {dir}")).collect())
    }
}
