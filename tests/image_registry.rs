//! Pulls from registries: one that misbehaves on purpose, and a real one.
#![allow(clippy::unwrap_used, missing_docs)]

mod image_support;
mod registry_support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use abicus::fault::Fault;
use abicus::image::registry::Access;
use abicus::image::{Image, ImageStore, quiet};
use image_support::{Bench, hex, tree};
use registry_support::{Real, push};

/// A request: path with query, and headers by lower-case name.
#[derive(Debug, Clone)]
struct Request {
    path: String,
    headers: BTreeMap<String, String>,
}

/// An answer: status, more headers, how much of the body is sent before the connection breaks, the body.
struct Answer {
    status: u16,
    headers: Vec<String>,
    cut: Option<usize>,
    body: Vec<u8>,
}

fn answer(status: u16, body: &[u8]) -> Answer {
    Answer { status, headers: vec![], cut: None, body: body.to_vec() }
}

type Behaviour = dyn Fn(&Request, usize) -> Option<Answer> + Send + Sync;

/// A registry on this machine that serves one layout and does as it is told.
struct Registry {
    address: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Registry {
    /// `behaviour` gets each request and how often that path was asked for before, and may answer in the place of the
    /// layout.
    fn start(layout: PathBuf, behaviour: impl Fn(&Request, usize) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, behaviour) = (seen.clone(), Arc::new(behaviour) as Arc<Behaviour>);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (layout, seen, behaviour) = (layout.clone(), kept.clone(), behaviour.clone());
                std::thread::spawn(move || drop(serve(&stream, &layout, &seen, &*behaviour)));
            }
        });
        Self { address, seen }
    }

    fn seen(&self, part: &str) -> Vec<Request> {
        self.seen.lock().unwrap().iter().filter(|request| request.path.contains(part)).cloned().collect()
    }
}

fn serve(stream: &TcpStream, layout: &Path, seen: &Mutex<Vec<Request>>, behaviour: &Behaviour) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let request = Request { path: path.clone(), headers };
        let before = {
            let mut seen = seen.lock().unwrap();
            let before = seen.iter().filter(|old| old.path == path).count();
            seen.push(request.clone());
            before
        };
        let answer = behaviour(&request, before).unwrap_or_else(|| stored(&request, layout));
        let more: String = answer.headers.iter().map(|header| format!("{header}\r\n")).collect();
        let length = answer.body.len();
        write!(stream, "HTTP/1.1 {} x\r\nContent-Length: {length}\r\n{more}\r\n", answer.status)?;
        stream.write_all(&answer.body[..answer.cut.unwrap_or(length).min(length)])?;
        if answer.cut.is_some() {
            return stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// What an honest registry answers; it understands ranges.
fn stored(request: &Request, layout: &Path) -> Answer {
    let last = request.path.rsplit('/').next().unwrap();
    if request.path == "/v2/" {
        return answer(200, b"{}");
    }
    let bytes = match last.strip_prefix("sha256:") {
        Some(hex) => fs::read(layout.join("blobs/sha256").join(hex)),
        None => fs::read(layout.join("tags").join(last)),
    };
    let Ok(bytes) = bytes else {
        return answer(404, br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#);
    };
    match request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()) {
        Some(from) if from < bytes.len() => answer(206, &bytes[from..]),
        Some(_) => answer(416, b""),
        None => answer(200, &bytes),
    }
}

fn biggest_blob(layout: &Path) -> String {
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|e| e.unwrap());
    blobs.max_by_key(|e| e.metadata().unwrap().len()).unwrap().file_name().into_string().unwrap()
}

fn pull(store: &ImageStore, reference: &str, access: &Access) -> Result<Image, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.pull(&"x".parse().unwrap(), reference, "amd64", access, quiet()))
}

fn quick() -> Access {
    Access { attempts: 3, ..Access::default() }
}

struct Pull {
    bench: Bench,
    layout: tempfile::TempDir,
    layers: Vec<Vec<u8>>,
}

impl Pull {
    fn new() -> Self {
        let layout = tempfile::tempdir().unwrap();
        let layers = registry_support::layout(layout.path());
        Self { bench: Bench::new(), layout, layers }
    }

    fn registry(&self, behaviour: impl Fn(&Request, usize) -> Option<Answer> + Send + Sync + 'static) -> Registry {
        Registry::start(self.layout.path().to_path_buf(), behaviour)
    }

    fn assert_whole(&self, image: &Image) {
        let chain = hex(format!("sha256:{} sha256:{}", hex(&self.layers[0]), hex(&self.layers[1])).as_bytes());
        assert_eq!(image.digest, format!("sha256:{chain}"));
        assert_eq!(fs::read(tree(image).join("b")).unwrap(), b"b");
    }
}

#[test]
fn an_image_is_pulled_once_by_tag_and_by_platform() {
    let pulled = Pull::new();
    let registry = pulled.registry(|_, _| None);
    let store = pulled.bench.store();
    for tag in ["many", "one", "many"] {
        pulled.assert_whole(&pull(&store, &format!("{}/team/app:{tag}", registry.address), &quick()).unwrap());
    }
    assert_eq!(registry.seen(&format!("blobs/sha256:{}", biggest_blob(pulled.layout.path()))).len(), 1);
    assert!(!fs::read_dir(store.cache().join("fetched")).unwrap().any(|_| true), "blobs are not kept beside the tree");
}

#[test]
fn a_pinned_image_that_is_there_needs_no_registry() {
    let pulled = Pull::new();
    let registry = pulled.registry(|_, _| None);
    let manifest = hex(&fs::read(pulled.layout.path().join("tags/one")).unwrap());
    let reference = format!("{}/app@sha256:{manifest}", registry.address);
    let store = pulled.bench.store();
    let first = pull(&store, &reference, &quick()).unwrap();
    assert_eq!(first.facts["reference"], reference);
    let asked = registry.seen("").len();
    assert_eq!(pull(&store, &reference, &quick()).unwrap().facts, first.facts);
    assert_eq!(registry.seen("").len(), asked);
}

#[test]
fn a_blob_that_breaks_off_is_gone_on_with_where_it_broke() {
    let pulled = Pull::new();
    let (blob, dir) = (biggest_blob(pulled.layout.path()), pulled.layout.path().to_path_buf());
    let name = blob.clone();
    let registry = pulled.registry(move |request, before| {
        let cut = request.path.contains(&name) && before < 4;
        cut.then(|| Answer { cut: Some(5000), ..stored(request, &dir) })
    });
    let image = pull(&pulled.bench.store(), &format!("{}/app:one", registry.address), &quick()).unwrap();
    pulled.assert_whole(&image);
    let ranges: Vec<_> = registry.seen(&blob).iter().map(|request| request.headers.get("range").cloned()).collect();
    let from = |at: u32| Some(format!("bytes={}-", at * 5000));
    assert_eq!(
        ranges,
        [None, from(1), from(2), from(3), from(4)],
        "four breaks are more than three attempts, but each moved"
    );
}

#[test]
fn a_pull_that_was_given_up_is_gone_on_with_by_the_next_run() {
    let pulled = Pull::new();
    let (blob, dir) = (biggest_blob(pulled.layout.path()), pulled.layout.path().to_path_buf());
    let name = blob.clone();
    let registry = pulled.registry(move |request, before| match before {
        _ if !request.path.contains(&name) => None,
        0 => Some(Answer { cut: Some(5000), ..stored(request, &dir) }),
        1..4 => Some(answer(500, b"")),
        _ => None,
    });
    let reference = format!("{}/app:one", registry.address);
    let fault = pull(&pulled.bench.store(), &reference, &quick()).map(|_| ()).unwrap_err();
    assert!(fault.transient && fault.cause.contains("failed 3 times"), "{fault}");
    pulled.assert_whole(&pull(&pulled.bench.store(), &reference, &quick()).unwrap());
    assert_eq!(registry.seen(&blob).last().unwrap().headers["range"], "bytes=5000-");
}

#[test]
fn a_registry_that_ignores_ranges_is_read_from_the_start_again() {
    let pulled = Pull::new();
    let (blob, dir) = (biggest_blob(pulled.layout.path()), pulled.layout.path().to_path_buf());
    let registry = pulled.registry(move |request, before| {
        if !request.path.contains(&blob) {
            return None;
        }
        let whole = Request { headers: BTreeMap::new(), ..request.clone() };
        Some(Answer { cut: (before < 1).then_some(5000), ..stored(&whole, &dir) })
    });
    pulled.assert_whole(&pull(&pulled.bench.store(), &format!("{}/app:one", registry.address), &quick()).unwrap());
}

#[test]
fn a_broken_layer_is_refused_by_its_digest_and_not_kept() {
    let pulled = Pull::new();
    let (blob, dir) = (biggest_blob(pulled.layout.path()), pulled.layout.path().to_path_buf());
    let name = blob.clone();
    let registry = pulled.registry(move |request, _| {
        request.path.contains(&name).then(|| {
            let mut answer = stored(request, &dir);
            answer.body[100] ^= 1;
            answer
        })
    });
    let fault =
        pull(&pulled.bench.store(), &format!("{}/app:one", registry.address), &quick()).map(|_| ()).unwrap_err();
    assert!(fault.cause.contains(&format!("sha256:{blob} was promised")), "{fault}");
    assert!(!fault.transient);
    pulled.bench.assert_outside_untouched_but(&["fetched"]);
    let honest = pulled.registry(|_, _| None);
    pulled.assert_whole(&pull(&pulled.bench.store(), &format!("{}/app:one", honest.address), &quick()).unwrap());
}

#[test]
fn a_manifest_that_is_not_the_one_that_was_pinned_is_refused() {
    let pulled = Pull::new();
    let registry = pulled.registry(|request, _| request.path.contains("manifests").then(|| answer(200, b"{}")));
    let reference = format!("{}/app@sha256:{}", registry.address, "0".repeat(64));
    let fault = pull(&pulled.bench.store(), &reference, &quick()).map(|_| ()).unwrap_err();
    assert!(fault.cause.contains("was promised"), "{fault}");
}

#[test]
fn a_blob_larger_than_promised_is_cut_short() {
    let pulled = Pull::new();
    let blob = biggest_blob(pulled.layout.path());
    let registry =
        pulled.registry(move |request, _| request.path.contains(&blob).then(|| answer(200, &vec![0; 4 << 20])));
    let fault =
        pull(&pulled.bench.store(), &format!("{}/app:one", registry.address), &quick()).map(|_| ()).unwrap_err();
    assert!(fault.cause.contains("sends more than"), "{fault}");
}

#[test]
fn errors_that_pass_are_waited_out() {
    let pulled = Pull::new();
    let registry = pulled.registry(|request, before| match before {
        _ if request.path == "/v2/" => None,
        0 => Some(answer(429, b"")),
        1 => Some(answer(503, b"")),
        _ => None,
    });
    pulled.assert_whole(&pull(&pulled.bench.store(), &format!("{}/app:one", registry.address), &quick()).unwrap());
}

#[test]
fn a_token_is_fetched_from_the_server_the_registry_names() {
    let pulled = Pull::new();
    let registry = pulled.registry(|request, _| {
        let host = &request.headers["host"];
        if request.path.starts_with("/token?") {
            let right = request.path == "/token?scope=repository%3Ateam%2Fapp%3Apull&service=the%20registry";
            let known = request.headers.get("authorization").map(String::as_str) == Some("Basic dXNlcjpzZXNhbWU=");
            return Some(if right && known { answer(200, b"{\"token\":\"t0k3n\"}") } else { answer(401, b"") });
        }
        let token = request.headers.get("authorization").is_some_and(|value| value == "Bearer t0k3n");
        (!token && request.path != "/v2/").then(|| Answer {
            headers: vec![format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"the registry\"")],
            ..answer(401, b"")
        })
    });
    let reference = format!("{}/team/app:one", registry.address);
    let fault = pull(&pulled.bench.store(), &reference, &quick()).map(|_| ()).unwrap_err();
    assert!(fault.cause.contains("wants a login") && fault.hint.unwrap().contains("docker login"), "{}", fault.cause);
    let file = pulled.layout.path().join("config.json");
    fs::write(&file, format!("{{\"auths\":{{\"{}\":{{\"auth\":\"dXNlcjpzZXNhbWU=\"}}}}}}", registry.address)).unwrap();
    let access = Access { auth_files: vec![file], ..quick() };
    pulled.assert_whole(&pull(&pulled.bench.store(), &reference, &access).unwrap());
    let token_requests = registry.seen("/token").len();
    assert_eq!(token_requests, 2, "one without credentials, and one for all requests of the pull");
}

#[test]
fn credentials_do_not_follow_a_redirect_nor_go_to_a_mirror() {
    let pulled = Pull::new();
    let elsewhere = pulled.registry(|_, _| None);
    let target = elsewhere.address.clone();
    let registry = pulled.registry(move |request, _| {
        if request.path == "/v2/" {
            return None;
        }
        if !request.headers.contains_key("authorization") {
            return Some(Answer {
                headers: vec!["WWW-Authenticate: Basic realm=\"x\"".to_owned()],
                ..answer(401, b"")
            });
        }
        let moved = Answer { headers: vec![format!("Location: http://{target}{}", request.path)], ..answer(307, b"") };
        request.path.contains("/blobs/").then_some(moved)
    });
    let mirror = pulled.registry(|request, _| (request.path != "/v2/").then(|| answer(404, b"")));
    let file = pulled.layout.path().join("config.json");
    fs::write(&file, format!("{{\"auths\":{{\"{}\":{{\"auth\":\"dXNlcjpzZXNhbWU=\"}}}}}}", registry.address)).unwrap();
    let mirrors = BTreeMap::from([(registry.address.clone(), vec![format!("http://{}/", mirror.address)])]);
    let access = Access { auth_files: vec![file], mirrors, ..quick() };
    pulled.assert_whole(&pull(&pulled.bench.store(), &format!("{}/app:one", registry.address), &access).unwrap());
    assert!(!mirror.seen("manifests/one").is_empty(), "the mirror is asked first");
    for other in [&elsewhere, &mirror] {
        assert!(!other.seen("").is_empty());
        assert!(other.seen("").iter().all(|request| !request.headers.contains_key("authorization")));
    }
}

#[test]
fn what_is_not_there_is_said_at_once_and_what_is_down_after_some_attempts() {
    let pulled = Pull::new();
    let registry = pulled.registry(|_, _| None);
    let fault =
        pull(&pulled.bench.store(), &format!("{}/app:none", registry.address), &quick()).map(|_| ()).unwrap_err();
    assert!(
        fault.cause.contains("no `none` in `app`: MANIFEST_UNKNOWN manifest unknown") && !fault.transient,
        "{fault}"
    );
    assert_eq!(registry.seen("none").len(), 1);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let fault = pull(&pulled.bench.store(), &format!("{free}/app"), &quick()).map(|_| ()).unwrap_err();
    assert!(fault.cause.contains("failed 3 times") && fault.transient, "{fault}");
    let fault = pull(&pulled.bench.store(), "no such/Thing", &quick()).map(|_| ()).unwrap_err();
    assert!(fault.cause.contains("is not a reference"), "{fault}");
}

#[test]
fn a_real_registry_without_a_password_serves_what_skopeo_pushed() {
    let (pulled, dir) = (Pull::new(), tempfile::tempdir().unwrap());
    let real = Real::start(dir.path(), false);
    push(pulled.layout.path(), &real, &[]);
    pulled.assert_whole(&pull(&pulled.bench.store(), &format!("{}/team/app:one", real.1), &quick()).unwrap());
    let fault = pull(&pulled.bench.store(), &format!("{}/team/app:two", real.1), &quick()).map(|_| ()).unwrap_err();
    assert!(fault.cause.contains("manifest unknown"), "{fault}");
}

#[test]
fn a_real_registry_with_a_password_wants_the_right_one() {
    let (pulled, dir) = (Pull::new(), tempfile::tempdir().unwrap());
    let real = Real::start(dir.path(), true);
    push(pulled.layout.path(), &real, &["--dest-creds", "user:sesame"]);
    let reference = format!("{}/team/app:one", real.1);
    let fault = pull(&pulled.bench.store(), &reference, &quick()).map(|_| ()).unwrap_err();
    assert!(fault.cause.contains("wants a login"), "{fault}");
    let file = dir.path().join("config.json");
    let login = |auth: &str| {
        fs::write(&file, format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{auth}\"}}}}}}", real.1)).unwrap();
        pull(&pulled.bench.store(), &reference, &Access { auth_files: vec![file.clone()], ..quick() })
    };
    let fault = login("dXNlcjp3cm9uZw==").map(|_| ()).unwrap_err();
    assert!(fault.cause.contains("refuses the credentials"), "{fault}");
    pulled.assert_whole(&login("dXNlcjpzZXNhbWU=").unwrap());
    fs::write(&file, format!("{{\"credHelpers\":{{\"{}\":\"{}\"}}}}", real.1, "no-such-helper")).unwrap();
    let access = Access { auth_files: vec![file.clone()], ..quick() };
    let fault = pull(&pulled.bench.store(), &reference, &access).map(|_| ()).unwrap_err();
    assert!(fault.cause.contains("docker-credential-no-such-helper"), "{fault}");
}
