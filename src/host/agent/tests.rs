//! The far side plays foul.

use super::*;
use crate::engine::Ended;
use crate::engine::builtin::launch::{Launch, launch};
use crate::engine::builtin::list::{List, stage};
use crate::host::Reach;
use frame::{HEADER, Head, MAGIC, MAX_FRAME, WINDOW};
use tokio::io::{AsyncReadExt, DuplexStream};

const HELLO: &[u8] =
    b"\x01\0\0\0release 6.1\nversion #1\nmachine x86_64\npage 4096\ncpus 2\nuid 0\ngid 0\ndir /tmp/a\n";

fn frame_of(channel: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    [&Head { channel, kind, length: payload.len() }.bytes()[..], payload].concat()
}

fn greeting() -> Vec<u8> {
    [&b"Welcome!\r\nlast login: never\n"[..], &MAGIC, &frame_of(0, kind::HELLO, HELLO)].concat()
}

/// An agent whose far side is `far`, which has said `said` already.
async fn agent(said: &[u8]) -> (Result<Agent, Fault>, DuplexStream) {
    let (near, mut far) = tokio::io::duplex(4 << 20);
    far.write_all(said).await.unwrap();
    let (reader, writer) = tokio::io::split(near);
    (Agent::connect("rack", Box::new(reader), Box::new(writer), Arc::new(|| None)).await, far)
}

async fn asked(far: &mut DuplexStream) -> Head {
    let mut head = [0; HEADER];
    far.read_exact(&mut head).await.unwrap();
    let head = Head::read(&head).unwrap();
    far.read_exact(&mut vec![0; head.length]).await.unwrap();
    head
}

#[tokio::test]
async fn what_is_said_before_the_greeting_is_skipped() {
    let (agent, _far) = agent(&greeting()).await;
    let site = agent.unwrap().site().await.unwrap();
    assert_eq!((site.kernel_release.as_str(), site.launcher.as_str()), ("6.1", "/tmp/a/launch"));
}

#[tokio::test]
async fn a_greeting_that_never_comes_or_makes_no_sense_is_refused_in_words() {
    for (said, word) in [
        (b"bash: /tmp/x: Permission denied\n".to_vec(), "Permission denied"),
        ([&MAGIC[..], &frame_of(0, kind::PING, HELLO)].concat(), "makes no sense"),
        ([&MAGIC[..], &frame_of(0, kind::HELLO, b"\x02\0\0\0")].concat(), "version 2"),
        ([&MAGIC[..], &frame_of(0, kind::HELLO, &HELLO[..40])].concat(), "no sound"),
        ([&MAGIC[..], &[0; 4], &[kind::HELLO], &[0xff; 4]].concat(), "makes no sense"),
        (vec![b'x'; 300 << 10], "talks a lot"),
    ] {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        far.write_all(&said).await.unwrap();
        drop(far);
        let (reader, writer) = tokio::io::split(near);
        let refused = Agent::connect("rack", Box::new(reader), Box::new(writer), Arc::new(|| None)).await;
        let fault = refused.err().unwrap();
        assert!(fault.cause.contains(word) && fault.cause.starts_with("rack: "), "{fault}");
    }
}

#[tokio::test]
async fn an_answer_longer_than_asked_for_ends_the_connection() {
    let (agent, mut far) = agent(&greeting()).await;
    let agent = agent.unwrap();
    let (read, ()) = tokio::join!(agent.read("/proc/version", 4), async {
        let head = asked(&mut far).await;
        far.write_all(&frame_of(head.channel, kind::REPLY, b"12345")).await.unwrap();
    });
    assert!(read.is_err());
    assert!(agent.site().await.unwrap_err().cause.contains("more than it was asked for"));
}

#[tokio::test]
async fn a_stream_beyond_its_credit_ends_the_connection_and_one_within_it_does_not() {
    let (agent, mut far) = agent(&greeting()).await;
    let agent = agent.unwrap();
    let mut launched = agent.launch(b"list").await.unwrap();
    let channel = asked(&mut far).await.channel;
    for _ in 0..WINDOW / MAX_FRAME {
        far.write_all(&frame_of(channel, kind::OUT, &[7; MAX_FRAME])).await.unwrap();
    }
    let mut some = vec![0; WINDOW];
    launched.stdout.read_exact(&mut some).await.unwrap();
    assert!(agent.site().await.is_ok());
    for _ in 0..=WINDOW / MAX_FRAME {
        far.write_all(&frame_of(channel, kind::ERR, &[7; MAX_FRAME])).await.unwrap();
    }
    launched.told.read_to_end(&mut some).await.unwrap();
    assert!(agent.site().await.unwrap_err().cause.contains("credit"));
}

#[tokio::test]
async fn a_launcher_that_could_not_be_made_says_so_in_its_own_words() {
    let (agent, mut far) = agent(&greeting()).await;
    let agent = agent.unwrap();
    let mut launched = agent.launch(b"list").await.unwrap();
    let channel = asked(&mut far).await.channel;
    far.write_all(&frame_of(channel, kind::END, &24i32.to_le_bytes())).await.unwrap();
    let mut told = String::new();
    launched.told.read_to_string(&mut told).await.unwrap();
    assert_eq!(told, "setup 4294967295 errno 24\n");
}

/// A list that starts a probe.
fn of_a_probe() -> List {
    let mut list = List::new();
    list.stage(stage::INSIDE).exec(&["/probe".to_owned()], &["/probe".to_owned()], &[]);
    list
}

#[tokio::test]
async fn output_that_comes_long_after_the_end_was_told_is_kept() {
    let (agent, mut far) = agent(&greeting()).await;
    let agent = agent.unwrap();
    let list = of_a_probe();
    let job = Launch { reach: &agent, list: &list, deadline: Duration::from_secs(60), cap: 1 << 20 };
    let ((attempt, _), ()) = tokio::join!(launch(&job), async {
        let channel = asked(&mut far).await.channel;
        let mut say = async |what, text: &[u8]| far.write_all(&frame_of(channel, what, text)).await.unwrap();
        say(kind::OUT, b"first ").await;
        say(kind::TOLD, b"started\nexit 0\ndone\n").await;
        for ended in [kind::TOLD, kind::ERR] {
            say(ended, b"").await;
        }
        // A host with hundreds of programs to run has other things to do.
        tokio::time::sleep(Duration::from_secs(2)).await;
        say(kind::OUT, b"last").await;
        say(kind::OUT, b"").await;
    });
    assert_eq!((attempt.ended, attempt.stdout.as_slice()), (Ok(Ended::Exit(0)), &b"first last"[..]));
}

#[tokio::test]
async fn output_that_a_broken_connection_may_have_cut_is_not_taken_for_whole() {
    let (agent, mut far) = agent(&greeting()).await;
    let agent = agent.unwrap();
    let list = of_a_probe();
    let job = Launch { reach: &agent, list: &list, deadline: Duration::from_secs(60), cap: 1 << 20 };
    let ((attempt, _), ()) = tokio::join!(launch(&job), async {
        let channel = asked(&mut far).await.channel;
        far.write_all(&frame_of(channel, kind::OUT, b"first ")).await.unwrap();
        far.write_all(&frame_of(channel, kind::TOLD, b"started\nexit 0\ndone\n")).await.unwrap();
        far.shutdown().await.unwrap();
    });
    let lost = attempt.ended.unwrap_err();
    assert!(lost.cause.contains("is lost") && lost.transient, "{lost:?}");
    assert_eq!(attempt.stdout, b"first ");
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

#[tokio::test]
async fn no_frame_of_a_hostile_host_does_harm() {
    for seed in 0..300 {
        let (agent, mut far) = agent(&greeting()).await;
        let agent = agent.unwrap();
        let mut launched = agent.launch(b"list").await.unwrap();
        let mut dice = Dice(seed);
        let mut said = vec![];
        for _ in 0..50 {
            let length = dice.roll(80) as usize;
            let payload: Vec<u8> = (0..length).map(|_| dice.roll(256) as u8).collect();
            said.extend(frame_of(dice.roll(4) as u32, dice.roll(26) as u8, &payload));
            if dice.roll(40) == 0 {
                said.push(dice.roll(256) as u8);
            }
        }
        let listing = agent.list("/dev");
        far.write_all(&said).await.unwrap();
        drop(far);
        let listing = tokio::time::timeout(Duration::from_secs(5), listing).await.expect("everything ends");
        assert!(listing.is_err() || listing.is_ok_and(|names| names.len() < 100));
        let mut told = vec![];
        launched.told.read_to_end(&mut told).await.unwrap();
        assert!(told.len() <= 50 * 80 && agent.site().await.is_err());
    }
}

#[test]
fn a_listing_has_names_and_no_paths() {
    let entry = |name: &[u8]| [&[0; 12][..], &(name.len() as u16).to_le_bytes(), name].concat();
    let said = [entry(b"b"), entry(b".."), entry(b"a/b"), entry(b""), entry(b"\xff"), entry(b"a")].concat();
    let found: Vec<_> = names(&said).into_iter().map(|(name, _)| name).collect();
    assert_eq!(found, ["a", "b"]);
    assert!(names(&said[..said.len() - 1]).len() == 1);
}
