//! The life of one container: create, inject, attach, start, listen, wait, look, remove.
//!
//! In: a connection, a template, a job. Out: an [`Attempt`]. The caller runs this in a task of its own, so that a cell that
//! is given up is still removed: nothing here is dropped half-way, cancelling only ends the wait.
//!
//! What an end means, as measured: the attached stream ends cleanly when the daemon is killed, so its end is never a
//! verdict; a daemon that is stopped in an orderly way reports 137 for a program it killed itself, so 137 that is neither
//! ours nor the out-of-memory killer's is the rig's; refusals are told apart by phase, because the engines use different
//! statuses for the same thing.

use std::pin::Pin;
use std::time::Duration;

use bollard::container::{AttachContainerResults, LogOutput};
use bollard::errors::Error;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder,
    UploadToContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body_util::{Either, Full};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::engine::{Attempt, Ended, Job, PAYLOAD_DIR, Timing};
use crate::fault::{Fault, Phase};

use super::api::{Api, CALL, CallError};
use super::create::{Delivery, Template};

/// How long a kill may take, and a removal from an engine that already failed to answer.
const KILL: Duration = Duration::from_secs(10);
/// How long the output of a program that was killed is still read.
const REST: Duration = Duration::from_secs(1);
/// How long docker may take to hear that the out-of-memory killer struck.
const OOM_EVENT: Duration = Duration::from_millis(500);

/// Removes one container whatever state it is in; `Ok` when there is none any more.
pub(super) async fn remove(api: &Api, name: &str, limit: Duration) -> Result<(), CallError> {
    let deadline = Instant::now() + limit;
    loop {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match api.call(limit, api.docker.remove_container(name, Some(options))).await {
            Err(error) if error.status() == Some(404) => return Ok(()),
            // Somebody else is at it, perhaps a call of ours that got no answer.
            Err(error) if error.status() == Some(409) && Instant::now() < deadline => {
                sleep(Duration::from_millis(100)).await;
            }
            result => return result,
        }
    }
}

/// One container being made, run and removed.
pub(super) struct Cell<'a> {
    pub(super) api: &'a Api,
    pub(super) template: &'a Template,
    pub(super) job: &'a Job,
    pub(super) image: &'a str,
    pub(super) delivery: &'a Delivery,
    /// The tar file, where the payload is uploaded.
    pub(super) upload: Option<Bytes>,
    pub(super) name: String,
}

type Chunks = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;

/// Why listening stopped.
enum Heard {
    /// The stream ended, which says nothing yet.
    End,
    /// More than the cap was written.
    Flood,
    /// The deadline passed.
    Late,
}

impl Cell<'_> {
    /// The whole life. `cancelled` resolves when nobody waits for the result any more.
    pub(super) async fn live(&self, cancelled: impl Future<Output = ()>) -> Attempt {
        let mut attempt = Attempt {
            ended: Ok(Ended::Exit(0)),
            stdout: vec![],
            stderr: vec![],
            timing: Timing::default(),
            notes: vec![],
        };
        let began = Instant::now();
        let created = self.create(&mut attempt.notes).await;
        let refused = matches!(&created, Err(error) if !error.is_outage());
        let mut output = super::output::Output::new(self.job.output_cap);
        attempt.ended = match created {
            Err(error) => Err(self.create_fault(&error)),
            Ok(()) => {
                let run = self.run(began, &mut attempt.timing, &mut output, &mut attempt.notes);
                tokio::select! {
                    ended = run => ended,
                    () = cancelled => Err(Fault::new(Phase::Wait, "the cell was given up")),
                }
            }
        };
        (attempt.stdout, attempt.stderr) = (output.stdout, output.stderr);
        // A container that was refused does not exist; one whose creation went unanswered may.
        if !refused {
            let began = Instant::now();
            self.clean_up(&mut attempt).await;
            attempt.timing.remove_ms = millis(began);
        }
        attempt
    }

    async fn clean_up(&self, attempt: &mut Attempt) {
        let outage = matches!(&attempt.ended, Err(fault) if fault.transient);
        let limit = if outage { KILL } else { CALL };
        if let Err(error) = remove(self.api, &self.name, limit).await {
            attempt
                .notes
                .push(format!("container {} may be left behind ({error}); `abicus sweep` removes it", self.name));
        }
    }

    async fn create(&self, notes: &mut Vec<String>) -> Result<(), CallError> {
        let mut options = CreateContainerOptionsBuilder::default().name(&self.name);
        if let Some(platform) = &self.template.options.platform {
            options = options.platform(platform);
        }
        let body = self.template.body(self.job, self.image, self.delivery);
        let made = self.api.call(CALL, self.api.docker.create_container(Some(options.build()), body)).await?;
        notes.extend(made.warnings.into_iter().filter(|w| !w.trim().is_empty()));
        Ok(())
    }

    fn create_fault(&self, error: &CallError) -> Fault {
        let fault = error.fault(Phase::Create, "create container");
        let text = error.to_string().to_lowercase();
        if error.status() == Some(404) || text.contains("no such image") {
            fault.hint("the image was removed from the engine while the run went on; run again")
        } else if text.contains("runtime") && self.template.runtime.is_some() {
            fault.hint("the engine does not know this runtime: add it to the daemon's `runtimes`, or correct `runtime`")
        } else {
            fault
        }
    }

    async fn run(
        &self,
        began: Instant,
        timing: &mut Timing,
        output: &mut super::output::Output,
        notes: &mut Vec<String>,
    ) -> Result<Ended, Fault> {
        if let Some(tar) = &self.upload {
            self.inject(tar.clone()).await?;
        }
        let mut chunks = self.attach().await?;
        timing.create_ms = millis(began);
        let started = Instant::now();
        let start = self.api.call(CALL, self.api.docker.start_container(&self.name, None)).await;
        start.map_err(|e| self.start_fault(&e, "start container"))?;
        // The program's time begins when it runs: what a busy engine takes to start it is not its own.
        let deadline = Instant::now() + self.job.deadline;
        let heard = listen(&mut chunks, output, deadline).await;
        let ended = self.end(heard, chunks, output, deadline, notes).await;
        timing.run_ms = millis(started);
        ended
    }

    async fn inject(&self, tar: Bytes) -> Result<(), Fault> {
        let path = if self.template.options.read_only { PAYLOAD_DIR } else { "/" };
        let options = UploadToContainerOptionsBuilder::default().path(path).build();
        let body = Either::Left(Full::new(tar));
        let upload = self.api.docker.upload_to_container(&self.name, Some(options), body);
        self.api.call(CALL, upload).await.map_err(|e| e.fault(Phase::Inject, "upload the payload"))
    }

    async fn attach(&self) -> Result<Chunks, Fault> {
        let options = AttachContainerOptionsBuilder::default().stream(true).stdout(true).stderr(true).build();
        // Podman already starts the runtime here, so what docker refuses at start podman refuses at attach.
        let attach = self.api.docker.attach_container(&self.name, Some(options));
        let AttachContainerResults { output, .. } =
            self.api.call(CALL, attach).await.map_err(|e| self.start_fault(&e, "attach to container"))?;
        Ok(output)
    }

    fn start_fault(&self, error: &CallError, what: &str) -> Fault {
        if error.is_outage() {
            return error.fault(Phase::Transport, what);
        }
        let text = error.to_string().to_lowercase();
        let program = self.job.argv.first().map_or("", String::as_str);
        let fault = error.fault(Phase::Start, what);
        if text.contains("exec format error") {
            fault.hint(format!("{program} is not for this host's architecture"))
        } else if text.contains("rlimit") {
            fault.hint("the engine may not raise its own limits (no CAP_SYS_RESOURCE): set `ulimits` to what it has")
        } else if text.contains("apply caps") {
            fault
                .hint("the engine itself lacks some of the capabilities asked for: name those it has in `capabilities`")
        } else if text.contains("hybrid mode") {
            fault.hint("crun refuses a host with both cgroup hierarchies: use `runtime = \"runc\"`, or boot with cgroup v2 only")
        } else if text.contains("no such file") || text.contains("not found") {
            fault.hint(format!("{program}, its loader, or the runtime's binary is missing"))
        } else {
            fault
        }
    }

    /// Turns what was heard into how it ended.
    async fn end(
        &self,
        heard: Heard,
        mut chunks: Chunks,
        output: &mut super::output::Output,
        deadline: Instant,
        notes: &mut Vec<String>,
    ) -> Result<Ended, Fault> {
        let ended = match heard {
            Heard::Flood => Ended::OutputCap,
            Heard::Late => Ended::Deadline,
            Heard::End => match timeout_at(deadline, self.wait()).await {
                Ok(code) => return self.look(code?, notes).await,
                // It closed its output and went on.
                Err(_) => Ended::Deadline,
            },
        };
        // Docker answers a kill when the program is gone, and that is only once its output is read or nobody listens: a
        // stream that is held and not read costs ten seconds and then the answer.
        let killed = if ended == Ended::OutputCap {
            drop(chunks);
            self.kill().await?
        } else {
            self.kill_and_read(&mut chunks, output).await?
        };
        if killed {
            return Ok(ended);
        }
        // It ended by itself while we decided to kill it: its own end is what counts, unless it wrote too much.
        if ended == Ended::OutputCap {
            return Ok(ended);
        }
        let code = timeout(KILL, self.wait()).await;
        let code = code.unwrap_or_else(|_| Err(CallError::Silent(KILL).fault(Phase::Transport, "wait")))?;
        self.look(code, notes).await
    }

    /// Kills the program; false when it had ended already.
    async fn kill(&self) -> Result<bool, Fault> {
        match self.api.call(KILL, self.api.docker.kill_container(&self.name, None)).await {
            Ok(()) => Ok(true),
            // Docker: 409 is not running. Podman: 409 too, 500 in some versions.
            Err(error) if error.status().is_some() => Ok(false),
            Err(error) => Err(error.fault(Phase::Transport, "kill container")),
        }
    }

    async fn kill_and_read(&self, chunks: &mut Chunks, output: &mut super::output::Output) -> Result<bool, Fault> {
        let mut kill = std::pin::pin!(self.kill());
        let mut killed = None;
        let mut limit = Instant::now() + KILL + REST;
        let mut reading = true;
        loop {
            tokio::select! {
                done = &mut kill, if killed.is_none() => {
                    killed = Some(done?);
                    limit = Instant::now() + REST;
                }
                chunk = timeout_at(limit, chunks.next()), if reading => match chunk {
                    Ok(Some(Ok(chunk))) => output.push(chunk),
                    _ => reading = false,
                },
                else => return Ok(killed.unwrap_or(false)),
            }
        }
    }

    /// Waits for the end of the program; the exit code where waiting says it.
    async fn wait(&self) -> Result<Option<i64>, Fault> {
        if !self.template.kind.waits() {
            return self.poll().await.map(|()| None);
        }
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        let mut stream = std::pin::pin!(self.api.docker.wait_container(&self.name, Some(options)));
        match stream.next().await {
            Some(Ok(response)) => Ok(Some(response.status_code)),
            // Bollard's way to say that the program did not exit with 0.
            Some(Err(Error::DockerContainerWaitError { code, .. })) => Ok(Some(code)),
            Some(Err(error)) => Err(CallError::from(error).fault(Phase::Transport, "wait").transient()),
            None => Err(Fault::new(Phase::Transport, "the engine ended the wait without an answer").transient()),
        }
    }

    async fn poll(&self) -> Result<(), Fault> {
        let mut pause = Duration::from_millis(2);
        loop {
            let state = self.state().await?;
            if state["Status"].as_str().is_some_and(|s| self.template.kind.has_ended(s)) {
                return Ok(());
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    async fn state(&self) -> Result<Value, Fault> {
        let path = format!("/containers/{}/json", self.name);
        let mut seen = self.api.get(&path).await.map_err(|e| {
            // The container is ours and was running: whatever keeps us from seeing it is an outage.
            e.fault(Phase::Transport, "inspect container").transient()
        })?;
        Ok(seen["State"].take())
    }

    /// The verdict of the engine on how the program ended.
    async fn look(&self, waited: Option<i64>, notes: &mut Vec<String>) -> Result<Ended, Fault> {
        let kind = self.template.kind;
        let mut state = self.state().await?;
        // Docker hears of the end and of the out-of-memory killer by separate events, in either order.
        let settled = Instant::now() + OOM_EVENT;
        while kind.reports_out_of_memory()
            && state["ExitCode"].as_i64() == Some(137)
            && state["OOMKilled"].as_bool() != Some(true)
            && Instant::now() < settled
        {
            sleep(Duration::from_millis(100)).await;
            state = self.state().await?;
        }
        if let Some(error) = state["Error"].as_str().filter(|e| !e.is_empty()) {
            notes.push(format!("the engine says: {error}"));
        }
        let Some(code) = state["ExitCode"].as_i64().or(waited) else {
            return Err(Fault::new(Phase::Wait, "the engine does not say how the program ended").transient());
        };
        let memory = state["OOMKilled"].as_bool() == Some(true);
        // A flag that is not set means little where a limit was: the event can be lost.
        let reliable = kind.reports_out_of_memory() && self.template.options.memory.is_none();
        verdict(code, memory, reliable, notes)
    }
}

/// What an exit code means when abicus killed nothing.
fn verdict(code: i64, memory: bool, reliable: bool, notes: &mut Vec<String>) -> Result<Ended, Fault> {
    match (code, memory) {
        (137, true) => Ok(Ended::OutOfMemory),
        (137, false) => {
            let fault =
                Fault::new(Phase::Wait, "something outside killed the program (137), cause unknown").transient();
            Err(if reliable {
                fault.hint("the engine was stopped, or somebody killed the container")
            } else {
                fault.hint("the engine was stopped, somebody killed the container, or it ran out of memory (which this engine does not always say)")
            })
        }
        (code, memory) => {
            if memory {
                notes.push("the out-of-memory killer ended a process in this container".to_owned());
            }
            Ok(Ended::Exit(i32::try_from(code).unwrap_or(i32::MAX)))
        }
    }
}

async fn listen(chunks: &mut Chunks, output: &mut super::output::Output, deadline: Instant) -> Heard {
    loop {
        match timeout_at(deadline, chunks.next()).await {
            Err(_) => return Heard::Late,
            // How the stream ends says nothing; what the engine then says does.
            Ok(None | Some(Err(_))) => return Heard::End,
            Ok(Some(Ok(chunk))) => output.push(chunk),
        }
        if output.flooded {
            return Heard::Flood;
        }
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_killed_by_nobody_known_is_a_fault_of_the_rig_and_not_of_the_cell() {
        let mut notes = vec![];
        let fault = verdict(137, false, true, &mut notes).unwrap_err();
        assert!(fault.transient && fault.phase == Phase::Wait, "{fault:?}");
        let unsure = verdict(137, false, false, &mut notes).unwrap_err();
        assert!(unsure.hint.unwrap().contains("out of memory"));
    }

    #[test]
    fn the_out_of_memory_killer_ends_a_cell_only_when_it_killed_the_program_itself() {
        let mut notes = vec![];
        assert_eq!(verdict(137, true, true, &mut notes), Ok(Ended::OutOfMemory));
        assert!(notes.is_empty());
        assert_eq!(verdict(0, true, true, &mut notes), Ok(Ended::Exit(0)));
        assert_eq!(notes.len(), 1, "a killed child is worth a note");
    }

    #[test]
    fn every_other_code_is_the_programs() {
        for code in [0, 1, 126, 127, 139, 255] {
            assert_eq!(verdict(code, false, true, &mut vec![]), Ok(Ended::Exit(code as i32)));
        }
    }
}
