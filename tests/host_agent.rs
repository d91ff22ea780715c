//! A host at the far end of a stream: the agent, here started on a pair of pipes, does what a local launcher does, and
//! leaves nothing when the stream ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod builtin_support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use abicus::engine::builtin::BuiltIn;
use abicus::engine::command::Kind as CommandKind;
use abicus::engine::native::Native;
use abicus::engine::{Attempt, Ended, Engine, EngineOptions, Job, Prepared};
use abicus::host::agent::Agent;
use abicus::host::{Local, Reach, facts};
use abicus::image::Content;
use abicus::probes;
use builtin_support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// An agent of this machine, with a directory of its own.
struct Far {
    child: Child,
    dir: PathBuf,
    agent: Arc<dyn Reach>,
}

async fn far(bench: &Bench) -> Far {
    let (program, dir) = (bench.path("launch"), bench.path("far"));
    if !program.exists() {
        fs::write(bench.path("launch.new"), probes::LAUNCH).unwrap();
        copy_program(&bench.path("launch.new"), &program);
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut child = Command::new(&program)
        .args([Path::new("agent"), &dir])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (writer, reader) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let agent = Agent::connect("far", Box::new(reader), Box::new(writer), Arc::new(|| None)).await.unwrap();
    Far { child, dir, agent: Arc::new(agent) }
}

impl Far {
    /// Ends the stream, and waits until the agent is gone.
    async fn end(mut self) {
        drop(self.agent);
        let ended = tokio::time::timeout(Duration::from_secs(10), self.child.wait()).await;
        assert!(ended.expect("the agent ends with its stream").unwrap().success());
        assert!(!self.dir.exists(), "the agent leaves its directory");
    }
}

async fn sh(engine: &dyn Engine, job: &Job, image: &str, script: &str) -> Attempt {
    let payload = if image == "host" { job.payload.dir.display().to_string() } else { "/.abicus".to_owned() };
    let script = format!("b() {{ {payload}/busybox \"$@\"; }}\n{script}");
    let argv = ["/.abicus/busybox", "sh", "-c", &script].map(str::to_owned).to_vec();
    engine.run(&Job { argv, ..job.clone() }, &Prepared(image.to_owned())).await
}

#[test]
fn a_host_tells_the_same_of_itself_through_an_agent() {
    runtime().block_on(async {
        let bench = Bench::new();
        let far = far(&bench).await;
        let local = Local::at(bench.path("work"));
        assert_eq!(facts(&*far.agent).await.unwrap(), facts(&local).await.unwrap());
        assert_eq!(far.agent.list("/dev").await.unwrap(), local.list("/dev").await.unwrap());
        assert_eq!(far.agent.read("/dev/zero", 100_000).await.unwrap(), vec![0; 100_000]);
        let error = far.agent.read("/no/such", 1).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        far.end().await;
    });
}

#[test]
fn cells_behind_an_agent_are_the_cells_of_here() {
    runtime().block_on(async {
        let mut bench = Bench::new();
        let far = far(&bench).await;
        let native = Native::new(far.agent.clone());
        assert_eq!(said(&sh(&native, &bench.job, "host", "echo native; pwd").await), "native\n/\n");
        let options: EngineOptions = toml::from_str("memory = '64m'").unwrap();
        let engine = BuiltIn::new(&options, far.agent.clone()).unwrap();
        engine.fingerprint().await.unwrap();
        assert_eq!(said(&sh(&engine, &bench.job, "empty", "b hostname; echo $$").await), "abicus\n1\n");
        let image = engine.prepare(&image(Content::Tree(tree(&bench, "tree")))).await.unwrap();
        let argv = ["/bin/busybox", "id", "-u"].map(str::to_owned).to_vec();
        let attempt = engine.run(&Job { argv, ..bench.job.clone() }, &image).await;
        assert_eq!(said(&attempt), "0\n");
        assert_eq!(sh(&engine, &bench.job, "empty", "exit 7").await.ended, Ok(Ended::Exit(7)));
        bench.job.deadline = Duration::from_millis(700);
        assert_eq!(sh(&engine, &bench.job, "empty", "b sleep 60").await.ended, Ok(Ended::Deadline));
        bench.job.deadline = Duration::from_secs(20);
        bench.job.output_cap = 300_000;
        let flood = sh(&engine, &bench.job, "empty", "b yes").await;
        assert_eq!((flood.ended, flood.stdout.len()), (Ok(Ended::OutputCap), 300_000));
        drop((native, engine));
        far.end().await;
    });
}

#[test]
fn commands_of_the_far_end_run_cells_and_leave_nothing() {
    runtime().block_on(async {
        let mut bench = Bench::new();
        let far = far(&bench).await;
        let tree = image(Content::Tree(tree(&bench, "tree")));
        for (kind, program) in [
            (CommandKind::Oci, "runc"),
            (CommandKind::Oci, "crun"),
            (CommandKind::Oci, "runsc"),
            (CommandKind::Bubblewrap, "bwrap"),
            (CommandKind::Nspawn, "systemd-nspawn"),
        ] {
            let options: EngineOptions = toml::from_str("memory = '256m'").unwrap();
            let engine = abicus::engine::command::Command::new(kind, Some(program), &options, far.agent.clone());
            let engine = engine.unwrap();
            engine.fingerprint().await.unwrap_or_else(|fault| panic!("{program}: {fault:?}"));
            assert_eq!(said(&sh(&engine, &bench.job, "empty", "b id -u").await), "0\n", "{program}");
            let prepared = engine.prepare(&tree).await.unwrap();
            let argv = ["/bin/busybox", "ls", "/bin"].map(str::to_owned).to_vec();
            let attempt = engine.run(&Job { argv, ..bench.job.clone() }, &prepared).await;
            assert_eq!(said(&attempt), "busybox\n", "{program}");
            assert_eq!(sh(&engine, &bench.job, "empty", "exit 7").await.ended, Ok(Ended::Exit(7)), "{program}");
            bench.job.deadline = Duration::from_secs(3);
            assert_eq!(sh(&engine, &bench.job, "empty", "b sleep 60").await.ended, Ok(Ended::Deadline), "{program}");
            bench.job.deadline = Duration::from_secs(20);
            assert_eq!(engine.sweep(Some(&bench.job.run)).await.unwrap(), Vec::<String>::new(), "{program}");
        }
        far.end().await;
    });
}

#[test]
fn sixty_cells_at_a_time_get_their_own_output_whole() {
    runtime().block_on(async {
        let mut bench = Bench::new();
        bench.job.output_cap = 4 << 20;
        let far = far(&bench).await;
        let native = Arc::new(Native::new(far.agent.clone()));
        let cells: Vec<_> = (0..60)
            .map(|n| {
                let (native, job) = (native.clone(), bench.job.clone());
                tokio::spawn(async move {
                    let script = format!("b yes {n} | b head -c 600000; b yes err{n} | b head -c 100000 >&2");
                    (n, sh(&*native, &job, "host", &script).await)
                })
            })
            .collect();
        for cell in cells {
            let (n, attempt) = cell.await.unwrap();
            assert_eq!(attempt.ended, Ok(Ended::Exit(0)));
            let line = format!("{n}\n");
            assert_eq!(attempt.stdout.len(), 600_000);
            assert!(attempt.stdout.chunks(line.len()).all(|chunk| line.as_bytes().starts_with(chunk)), "cell {n}");
            assert_eq!(attempt.stderr.len(), 100_000);
        }
        drop(native);
        far.end().await;
    });
}

#[test]
fn a_tree_arrives_as_it_was() {
    runtime().block_on(async {
        let bench = Bench::new();
        let tree = tree(&bench, "image");
        fs::write(tree.join("big"), vec![b'x'; 1_000_000]).unwrap();
        fs::hard_link(tree.join("big"), tree.join("bin/same")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", tree.join("link")).unwrap();
        fs::create_dir(tree.join("closed")).unwrap();
        fs::write(tree.join("closed/suid"), "x").unwrap();
        std::os::unix::fs::chown(tree.join("closed/suid"), Some(5), Some(6)).unwrap();
        fs::set_permissions(tree.join("closed/suid"), fs::Permissions::from_mode(0o4711)).unwrap();
        fs::set_permissions(tree.join("closed"), fs::Permissions::from_mode(0o500)).unwrap();
        let made = std::process::Command::new("mknod").arg(tree.join("null")).args(["c", "1", "3"]).status().unwrap();
        assert!(made.success());
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let attribute = "security.capability";
        xattr(&tree.join("bin/busybox"), attribute, Some(&capability));
        let far = far(&bench).await;
        let there = PathBuf::from(far.agent.put(&tree, "digest").await.unwrap());
        assert!(there.starts_with(&far.dir));
        assert_eq!(listing(&there), listing(&tree));
        assert_eq!(xattr(&there.join("bin/busybox"), attribute, None), capability);
        assert_eq!(fs::read(there.join("big")).unwrap(), fs::read(tree.join("big")).unwrap());
        let again = far.agent.put(&tree, "digest").await.unwrap();
        assert_eq!(PathBuf::from(again), there);
        assert!(far.agent.put(&tree.join("nowhere"), "none").await.is_err());
        far.end().await;
    });
}

/// Sets an attribute, or reads it.
fn xattr(file: &Path, name: &str, value: Option<&[u8]>) -> Vec<u8> {
    let mut room = vec![0; 100];
    match value {
        Some(value) => {
            rustix::fs::setxattr(file, name, value, rustix::fs::XattrFlags::empty()).unwrap();
            value.to_vec()
        }
        None => {
            let n = rustix::fs::getxattr(file, name, &mut room).unwrap();
            room.truncate(n);
            room
        }
    }
}

#[test]
fn everything_behind_a_stream_dies_with_it() {
    runtime().block_on(async {
        let bench = Bench::new();
        let far = far(&bench).await;
        let engine = BuiltIn::new(&EngineOptions::default(), far.agent.clone()).unwrap();
        let native = Native::new(far.agent.clone());
        let nap = nap(4720);
        let escape = format!("b setsid b sleep {nap} & b sleep {nap}");
        let (pid, agent) = (far.child.id().unwrap(), far.agent.clone());
        let cut = async {
            wait(|| processes(&nap).len() >= 2).await;
            let begun = Instant::now();
            let killed = std::process::Command::new("kill").args(["-TERM", &pid.to_string()]).status().unwrap();
            assert!(killed.success());
            wait(|| processes(&nap).is_empty()).await;
            begun.elapsed()
        };
        let (native, cell, took) =
            tokio::join!(sh(&native, &bench.job, "host", &escape), sh(&engine, &bench.job, "empty", &escape), cut);
        assert!(took < Duration::from_secs(5), "{took:?}");
        for attempt in [native, cell] {
            assert!(
                attempt.ended.as_ref().is_err_and(|fault| fault.cause.contains("connection to far")),
                "{attempt:?}"
            );
        }
        assert!(agent.site().await.is_err());
        drop(agent);
        drop(engine);
        far.end().await;
    });
}

async fn wait(mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(10), "still not after 10 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_socket_behind_an_agent_carries_bytes_both_ways() {
    runtime().block_on(async {
        let bench = Bench::new();
        let far = far(&bench).await;
        let socket = bench.path("echo.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        let path = socket.to_str().unwrap();
        let (mut reader, mut writer) = far.agent.connect(path).await.unwrap();
        let sent: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
        let (wrote, got) = tokio::join!(
            async {
                writer.write_all(&sent).await?;
                writer.shutdown().await
            },
            async {
                let mut got = vec![];
                reader.read_to_end(&mut got).await.map(|_| got)
            }
        );
        wrote.unwrap();
        assert!(got.unwrap() == sent);
        let refused = far.agent.connect("/no/such.sock").await.err().unwrap();
        assert_eq!(refused.kind(), std::io::ErrorKind::NotFound);
        // More than there are channels, one after the other: each gives its own back.
        for _ in 0..400 {
            drop(far.agent.connect(path).await.unwrap());
        }
        far.end().await;
    });
}
