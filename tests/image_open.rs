//! Images of every kind become trees, digests and facts.
#![allow(clippy::unwrap_used, missing_docs)]

mod image_support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use abicus::fault::{Fault, Phase};
use abicus::image::{Content, EMPTY_DIGEST, Image, ImageStore, Progress, Pull, Source, Step, quiet};
use image_support::{Bench, Layout, Tape, awkward_tree, config, gzip, hex, is_root, listing, saved, tree};

fn names(image: &Image) -> Vec<String> {
    let found = image_support::run("find", &[tree(image).to_str().unwrap(), "-mindepth", "1", "-printf", "%P\n"]);
    let mut names: Vec<String> = found.lines().map(str::to_owned).collect();
    names.sort();
    names
}

fn layout(path: &Path, tag: Option<&str>) -> Source {
    Source::Layout { path: path.to_path_buf(), tag: tag.map(str::to_owned) }
}

fn fault(result: Result<Image, Fault>) -> (String, String) {
    let fault = result.map(|image| image.digest).unwrap_err();
    assert_eq!(fault.phase, Phase::Image);
    (fault.cause, fault.hint.unwrap_or_default())
}

#[test]
fn scratch_is_nothing_at_all() {
    let bench = Bench::new();
    let image = bench.open(&Source::Scratch).unwrap();
    assert_eq!((image.content, image.digest.as_str()), (Content::Empty, EMPTY_DIGEST));
    let saved = bench.layers(&[]).unwrap();
    assert_eq!((saved.content, saved.digest.as_str()), (Content::Empty, EMPTY_DIGEST), "an image without layers too");
}

#[test]
fn a_reference_stays_a_reference() {
    let reference = "example/app:1".to_owned();
    let source = Source::Reference { reference, architecture: None, pull: Pull::Engine };
    let image = Bench::new().open(&source).unwrap();
    assert_eq!(image.content, Content::Reference("example/app:1".to_owned()));
    assert_eq!(image.digest, "");
}

#[test]
fn a_directory_is_copied_whole_and_known_by_its_content() {
    let (bench, source) = (Bench::new(), tempfile::tempdir().unwrap());
    awkward_tree(source.path());
    let rootfs = Source::Rootfs(source.path().to_path_buf());
    let first = bench.open(&rootfs).unwrap();
    if is_root() {
        assert_eq!(listing(source.path()), listing(tree(&first)));
    }
    assert_eq!(bench.open(&rootfs).unwrap().digest, first.digest);
    fs::write(source.path().join("etc/exact"), [8u8; 1024]).unwrap();
    let second = bench.open(&rootfs).unwrap();
    assert_ne!(second.digest, first.digest);
    assert_eq!(fs::read(tree(&first).join("etc/exact")).unwrap(), [7u8; 1024], "the older tree is as it was");
}

#[test]
fn a_tar_of_a_root_file_system_may_be_plain_or_compressed_and_is_the_same_image() {
    let bench = Bench::new();
    let plain = Tape::new().dir("etc").file("etc/os-release", "ID=thing\nVERSION_ID=\"7\"\n").file(".wh.x", "").end();
    let digests: Vec<String> = [plain.clone(), gzip(&plain), zstd::encode_all(plain.as_slice(), 3).unwrap()]
        .iter()
        .map(|tar| {
            let image = bench.rootfs(tar).unwrap();
            assert_eq!((image.facts["os.id"].as_str(), image.facts["os.version"].as_str()), ("thing", "7"));
            assert_eq!(names(&image), [".wh.x", "etc", "etc/os-release"], "in a plain tar no name deletes");
            image.digest
        })
        .collect();
    assert_eq!(digests, vec![format!("sha256:{}", hex(&plain)); 3]);
    assert_eq!(fs::read_dir(bench.store().cache().join("trees")).unwrap().count(), 1, "they share one tree");
}

#[test]
fn files_of_gnu_tar_with_holes_keep_content_and_size() {
    let bench = Bench::new();
    let source = tempfile::tempdir().unwrap();
    let file = fs::File::create(source.path().join("holes")).unwrap();
    for (at, byte) in [(0u64, b'a'), (1 << 20, b'b'), (3 << 20, b'c'), (5 << 20, b'd'), (7 << 20, b'e')] {
        std::os::unix::fs::FileExt::write_all_at(&file, &[byte; 4096], at).unwrap();
    }
    file.set_len(8 << 20).unwrap();
    for format in ["gnu", "pax", "oldgnu"] {
        let tar = bench.dir.path().join("sparse.tar");
        let (tar_path, dir) = (tar.to_str().unwrap(), source.path().to_str().unwrap());
        image_support::run("tar", &["-S", &format!("--format={format}"), "-cf", tar_path, "-C", dir, "."]);
        assert!(fs::metadata(&tar).unwrap().len() < 1 << 20, "{format}: tar did store holes");
        let image = bench.open(&Source::Rootfs(tar)).unwrap();
        let same = fs::read(tree(&image).join("holes")).unwrap() == fs::read(source.path().join("holes")).unwrap();
        assert!(same, "{format}");
    }
}

#[test]
fn later_layers_delete_replace_and_add() {
    let lower = Tape::new()
        .dir("keep")
        .file("keep/a", "a")
        .file("keep/b", "b")
        .dir("gone")
        .file("gone/x", "x")
        .dir("opaque")
        .file("opaque/old", "old")
        .dir("to-link")
        .file("to-link/x", "x")
        .file("to-dir", "x")
        .symlink("link-to-dir", "keep")
        .file("file", "old")
        .end();
    let upper = Tape::new()
        .file("keep/.wh.a", "")
        .file("keep/c", "c")
        .file(".wh.gone", "")
        .file("opaque/new", "new")
        .file("opaque/.wh..wh..opq", "")
        .symlink("to-link", "keep")
        .dir("to-dir")
        .file("to-dir/y", "y")
        .file("link-to-dir/d", "d")
        .file(".wh.not-there", "")
        .file(".wh..wh.plnk", "")
        .file("file", "new")
        .link("hard", "keep/b")
        .end();
    let bench = Bench::new();
    let image = bench.layers(&[lower, upper]).unwrap();
    let expected = [
        "file",
        "hard",
        "keep",
        "keep/b",
        "keep/c",
        "keep/d",
        "link-to-dir",
        "opaque",
        "opaque/new",
        "to-dir",
        "to-dir/y",
        "to-link",
    ];
    assert_eq!(names(&image), expected);
    let root = tree(&image);
    assert_eq!(fs::read(root.join("file")).unwrap(), b"new");
    assert_eq!(fs::metadata(root.join("hard")).unwrap().ino(), fs::metadata(root.join("keep/b")).unwrap().ino());
    assert!(fs::symlink_metadata(root.join("to-link")).unwrap().is_symlink());
}

#[test]
fn a_layer_never_deletes_what_it_brings_itself_in_whatever_order() {
    let lower = Tape::new().dir("d").file("d/old", "x").dir("e").file("e/old", "x").file("f", "old").end();
    let entries: [fn(Tape) -> Tape; 6] = [
        |tape| tape.dir("d").file("d/new", "x"),
        |tape| tape.file(".wh.d", ""),
        |tape| tape.file("e/new/deep", "x"),
        |tape| tape.file("e/.wh..wh..opq", ""),
        |tape| tape.file("f", "new"),
        |tape| tape.file(".wh.f", ""),
    ];
    let bench = Bench::new();
    let forwards = entries.iter().fold(Tape::new(), |tape, entry| entry(tape)).end();
    let backwards = entries.iter().rev().fold(Tape::new(), |tape, entry| entry(tape)).end();
    for upper in [forwards, backwards] {
        let image = bench.layers(&[lower.clone(), upper]).unwrap();
        assert_eq!(names(&image), ["d", "d/new", "e", "e/new", "e/new/deep", "f"]);
        assert_eq!(fs::read(tree(&image).join("f")).unwrap(), b"new");
    }
}

#[test]
fn modes_and_times_are_those_of_the_archive_whatever_came_after_in_a_directory() {
    let layer = Tape::new()
        .raw(b'5', "d", "", b"", |header| header.set_mode(0o1555))
        .raw(b'0', "d/suid", "", b"x", |header| {
            header.set_mode(0o4711);
            header.set_mtime(86_400);
        })
        .symlink("d/link", "suid")
        .end();
    let bench = Bench::new();
    let later = Tape::new().file("d/later", "x").file("made/on/the/way", "x").end();
    let image = bench.layers(&[layer, later]).unwrap();
    let stat = |path: &str| fs::symlink_metadata(tree(&image).join(path)).unwrap();
    assert_eq!((stat("d").mode() & 0o7777 | 0o200, stat("d").mtime()), (0o1755, 1_000_000_000));
    assert_eq!((stat("d/suid").mode() & 0o7777, stat("d/suid").mtime()), (0o4711, 86_400));
    assert_eq!(stat("d/link").mtime(), 1_000_000_000);
    assert_eq!((stat("made/on").mode() & 0o7777, stat("made/on").mtime()), (0o755, 0), "not the time of unpacking");
}

#[test]
fn a_saved_image_has_the_digest_of_its_chain_and_tells_what_it_is() {
    let layers = [Tape::new().file("a", "a").end(), Tape::new().file("b", "b").end()];
    let bench = Bench::new();
    let image = bench.layers(&layers).unwrap();
    let chain = hex(format!("sha256:{} sha256:{}", hex(&layers[0]), hex(&layers[1])).as_bytes());
    assert_eq!(image.digest, format!("sha256:{chain}"));
    assert_eq!(image.facts["digest"], image.digest);
    assert_eq!(image.facts["created"], "2020-02-02T02:02:02Z");
    assert_eq!((image.facts["arch"].as_str(), image.facts["size"].as_str()), ("amd64", "2"));
    assert_eq!(image.facts["libc.kind"], "none");
    let compressed = bench
        .open(&Source::Archive { path: bench.write("saved.tar.gz.tar", &gzip(&saved(&layers))), tag: None })
        .unwrap();
    assert_eq!(compressed.facts, image.facts);
    assert_eq!(compressed.content, image.content);
}

#[test]
fn an_archive_of_several_images_needs_a_tag_and_says_which_there_are() {
    let layer = Tape::new().file("two", "").end();
    let config = config(std::slice::from_ref(&layer), "amd64");
    let entry = |tag: &str| format!("{{\"Config\":\"c.json\",\"RepoTags\":[\"{tag}\"],\"Layers\":[\"l.tar\"]}}");
    let manifest = format!("[{},{}]", entry("thing:one"), entry("docker.io/library/thing:two"));
    let tape =
        Tape::new().file("c.json", &config).raw(b'0', "l.tar", "", &layer, |_| {}).file("manifest.json", &manifest);
    let bench = Bench::new();
    let path = bench.write("two.tar", &tape.end());
    let (cause, hint) = fault(bench.open(&Source::Archive { path: path.clone(), tag: None }));
    assert!(cause.contains("holds 2 images") && hint.contains("thing:one"), "{cause} {hint}");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let id = "x".parse().unwrap();
    let store = bench.store();
    let open = |tag: &str| {
        let source = Source::Archive { path: path.clone(), tag: Some(tag.to_owned()) };
        runtime.block_on(store.open(&id, &source, Path::new("/"), "amd64", quiet()))
    };
    assert_eq!(names(&open("thing:two").unwrap()), ["two"]);
    let (cause, hint) = fault(open("thing:three"));
    assert!(cause.contains("no image with tag `thing:three`") && hint.contains("thing:one"), "{cause} {hint}");
}

#[test]
fn links_between_layers_of_an_old_saved_image_are_followed() {
    let layer = Tape::new().file("a", "a").end();
    let config = config(&[layer.clone(), layer.clone()], "amd64");
    let manifest = "[{\"Config\":\"c.json\",\"RepoTags\":null,\"Layers\":[\"x/layer.tar\",\"y/layer.tar\"]}]";
    let tape = Tape::new().file("manifest.json", manifest).file("./c.json", &config);
    let tape = tape.symlink("x/layer.tar", "../y/layer.tar").raw(b'0', "y/layer.tar", "", &layer, |_| {});
    let bench = Bench::new();
    assert_eq!(
        names(&bench.open(&Source::Archive { path: bench.write("old.tar", &tape.end()), tag: None }).unwrap()),
        ["a"]
    );
}

#[test]
fn a_layout_is_read_by_tag_and_by_platform() {
    let (bench, dir) = (Bench::new(), tempfile::tempdir().unwrap());
    let oci = Layout(dir.path());
    let layer = |name: &str| vec![Tape::new().file(name, "").end()];
    let platform = |name: &str| format!(",\"platform\":{{\"os\":\"linux\",\"architecture\":\"{name}\"}}");
    let tag = |name: &str| format!(",\"annotations\":{{\"org.opencontainers.image.ref.name\":\"{name}\"}}");
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    let amd64 = oci.image(&layer("amd64"), "amd64", gzip, &platform("amd64"));
    let arm64 = oci.image(&layer("arm64"), "arm64", zstd, &platform("arm64"));
    let attestation = ",\"platform\":{\"os\":\"unknown\",\"architecture\":\"unknown\"}";
    let attestation = oci.image(&layer("attestation"), "unknown", gzip, attestation);
    let (index, size) = oci.blob(oci.index(&[attestation, arm64, amd64]).as_bytes());
    let multi = format!("{{\"mediaType\":\"x\",\"digest\":\"{index}\",\"size\":{size}{}}}", tag("multi"));
    oci.write_index(&[multi, oci.image(&layer("single"), "amd64", <[u8]>::to_vec, &tag("single"))]);

    let image = bench.open(&layout(dir.path(), Some("multi"))).unwrap();
    assert_eq!(names(&image), ["amd64"]);
    assert!(image.facts["manifest.digest"].starts_with("sha256:"));
    assert_eq!(names(&bench.open(&layout(dir.path(), Some("single"))).unwrap()), ["single"]);
    let (cause, hint) = fault(bench.open(&layout(dir.path(), None)));
    assert!(cause.contains("holds 2 images") && hint.contains("multi, single"), "{cause} {hint}");

    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let id = "x".parse().unwrap();
    let store = bench.store();
    let open =
        |arch| runtime.block_on(store.open(&id, &layout(dir.path(), Some("multi")), Path::new("/"), arch, quiet()));
    assert_eq!(names(&open("arm64").unwrap()), ["arm64"]);
    let (cause, hint) = fault(open("s390x"));
    assert!(cause.contains("no image for linux/s390x") && hint.contains("linux/amd64, linux/arm64"), "{cause} {hint}");

    // The same layout in a tar is an archive.
    let tar = bench.dir.path().join("oci.tar");
    fs::remove_file(dir.path().join("index.json")).unwrap();
    oci.write_index(&[oci.image(&layer("single"), "amd64", gzip, "")]);
    image_support::run("tar", &["-cf", tar.to_str().unwrap(), "-C", dir.path().to_str().unwrap(), "."]);
    assert_eq!(names(&bench.open(&Source::Archive { path: tar, tag: None }).unwrap()), ["single"]);
}

#[test]
fn a_blob_of_a_layout_that_was_changed_cut_or_lost_is_named() {
    let bench = Bench::new();
    let layers = [Tape::new().file("a", "a").end()];
    let dir = tempfile::tempdir().unwrap();
    let oci = Layout(dir.path());
    oci.write_index(&[oci.image(&layers, "amd64", gzip, "")]);
    let blobs: Vec<_> = fs::read_dir(dir.path().join("blobs/sha256")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(blobs.len(), 3);
    for blob in blobs {
        let whole = fs::read(&blob).unwrap();
        let mut changed = whole.clone();
        let middle = whole.len() / 2;
        changed[middle] ^= 1;
        for broken in [changed, whole[..middle].to_vec(), [whole.as_slice(), b" "].concat()] {
            fs::write(&blob, broken).unwrap();
            let (cause, hint) = fault(bench.open(&layout(dir.path(), None)));
            assert!(!hint.is_empty(), "{cause}");
        }
        fs::remove_file(&blob).unwrap();
        assert!(fault(bench.open(&layout(dir.path(), None))).0.contains("has no file `blobs/sha256/"));
        fs::write(&blob, whole).unwrap();
    }
    assert_eq!(fs::read_dir(bench.store().cache().join("trees")).unwrap().count(), 0);
    bench.open(&layout(dir.path(), None)).unwrap();
}

#[test]
fn what_is_not_there_or_not_that_kind_of_thing_is_said_with_advice() {
    let bench = Bench::new();
    let (cause, hint) = fault(bench.open(&Source::Rootfs("missing/tree".into())));
    assert!(cause.contains("missing/tree` is not there") && hint.contains("relative to the file"), "{cause} {hint}");
    let rootfs = bench.write("r.tar", &Tape::new().dir("etc").file("etc/x", "").end());
    let (cause, hint) = fault(bench.open(&Source::Archive { path: rootfs, tag: None }));
    assert!(cause.contains("neither manifest.json nor index.json") && hint.contains("rootfs"), "{cause} {hint}");
    let (cause, hint) = fault(bench.rootfs(&saved(&[Tape::new().file("a", "").end()])));
    assert!(cause.contains("archive of layers") && hint.contains("archive ="), "{cause} {hint}");
    let (cause, _) =
        fault(bench.rootfs(b"#!/bin/sh\necho this is no tar archive, whatever its name says\n".repeat(20).as_slice()));
    assert!(cause.contains("wrong checksum"), "{cause}");
    let (cause, _) = fault(bench.rootfs(b"BZh91AY&SY"));
    assert!(cause.contains("bzip2 or xz"), "{cause}");
    let windows = "{\"os\":\"windows\",\"rootfs\":{\"diff_ids\":[]}}";
    let manifest = "[{\"Config\":\"c.json\",\"RepoTags\":null,\"Layers\":[]}]";
    let tape = Tape::new().file("c.json", windows).file("manifest.json", manifest).end();
    let (cause, _) = fault(bench.open(&Source::Archive { path: bench.write("w.tar", &tape), tag: None }));
    assert!(cause.contains("operating system `windows`"), "{cause}");
}

#[test]
fn programs_of_another_architecture_are_noticed_whatever_the_configuration_says() {
    let mut program = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0\x01\0\0\0".to_vec();
    program.resize(64, 0);
    program[52..60].copy_from_slice(&[64, 0, 56, 0, 0, 0, 64, 0]);
    let layer = Tape::new().raw(b'0', "bin/sh", "", &program, |header| header.set_mode(0o755)).end();
    let image = Bench::new().layers(&[layer]).unwrap();
    assert_eq!(image.architecture.as_deref(), Some("arm64"));
    assert_eq!((image.facts["arch"].as_str(), image.facts["arch.declared"].as_str()), ("arm64", "amd64"));
}

#[test]
fn this_machines_own_libc_and_loader_are_recognised() {
    let bench = Bench::new();
    let machine = Path::new("/");
    let loader = image_support::run("readelf", &["-l", "/bin/sh"]);
    let loader = loader.split("interpreter: ").nth(1).unwrap().split(']').next().unwrap().to_owned();
    let dir = tempfile::tempdir().unwrap();
    let maps = image_support::run("ldd", &["/bin/sh"]);
    let libc = maps.split_whitespace().find(|word| word.ends_with("/libc.so.6")).unwrap().to_owned();
    for path in [loader.as_str(), "/bin/sh", libc.as_str()] {
        let copy = dir.path().join(&path[1..]);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(machine.join(&path[1..]), copy).unwrap();
    }
    symlink("sh", dir.path().join("bin/bash")).unwrap();
    let image = bench.open(&Source::Rootfs(dir.path().to_path_buf())).unwrap();
    let version = image_support::run("ldd", &["--version"]);
    let version = version.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned();
    assert_eq!((image.facts["libc.kind"].as_str(), &image.facts["libc.version"]), ("glibc", &version));
    assert_eq!(image.loader.as_deref(), Some(loader.as_str()));
    assert_eq!(image.facts["interpreters"], "bash sh");
    assert!(image.facts["abi.min_kernel"].starts_with("3."), "{:?}", image.facts);
    assert_eq!(image.facts["isa.needed"], "x86-64");
}

#[test]
fn one_image_opened_many_times_at_once_is_unpacked_once() {
    let bench = Bench::new();
    let layers: Vec<Vec<u8>> =
        (0..4).map(|at| Tape::new().file(&format!("f{at}"), &"x".repeat(300_000)).end()).collect();
    let archive = bench.write("saved.tar", &saved(&layers));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    let unpacked = Arc::new(AtomicUsize::new(0));
    let seen = unpacked.clone();
    let progress: Progress = Arc::new(move |step: Step<'_>| {
        if step.what == "looking at it" {
            seen.fetch_add(1, Ordering::Relaxed);
        }
    });
    // Two stores on one cache are what two processes are: the lock is the kernel's.
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (store, archive, progress) = (bench.store(), archive.clone(), progress.clone());
            runtime.spawn(async move {
                let id = "x".parse().unwrap();
                store
                    .open(&id, &Source::Archive { path: archive, tag: None }, Path::new("/"), "amd64", progress)
                    .await
                    .unwrap()
            })
        })
        .collect();
    let images: Vec<Image> = tasks.into_iter().map(|task| runtime.block_on(task).unwrap()).collect();
    assert!(images.iter().all(|image| image.content == images[0].content));
    assert_eq!(unpacked.load(Ordering::Relaxed), 1);
    assert_eq!(fs::read_dir(bench.store().cache().join("work")).unwrap().count(), 0);
}

#[test]
fn an_image_nobody_waits_for_any_more_leaves_nothing_behind() {
    let bench = Bench::new();
    let archive = bench.write("big.tar", &saved(&[Tape::new().file("f", &"x".repeat(20 << 20)).end()]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let store = bench.store();
    let started = Arc::new(AtomicUsize::new(0));
    let seen = started.clone();
    let slow: Progress = Arc::new(move |_| {
        seen.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(std::time::Duration::from_millis(100));
    });
    runtime.block_on(async {
        let id = "x".parse().unwrap();
        let source = Source::Archive { path: archive, tag: None };
        let open = store.open(&id, &source, Path::new("/"), "amd64", slow);
        let dropped = tokio::time::timeout(std::time::Duration::from_millis(150), open).await;
        assert!(dropped.is_err(), "it was done before it could be dropped");
    });
    drop(runtime);
    assert!(started.load(Ordering::Relaxed) > 0);
    for directory in ["work", "trees", "sources"] {
        assert_eq!(fs::read_dir(store.cache().join(directory)).unwrap().count(), 0, "{directory}");
    }
}

#[test]
fn a_cache_that_cannot_be_made_is_an_image_fault_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let fault = ImageStore::at(dir.path().join("file/cache")).map(|_| ()).unwrap_err();
    assert!(
        fault.to_string().contains("could not make the image cache") && fault.cause.contains("file/cache"),
        "{fault}"
    );
}

#[test]
fn nobody_else_gets_at_the_set_user_id_programs_in_the_cache() {
    let bench = Bench::new();
    let trees = bench.store().cache().join("trees");
    fs::set_permissions(&trees, fs::Permissions::from_mode(0o755)).unwrap();
    bench.store();
    assert_eq!(fs::metadata(trees).unwrap().mode() & 0o077, 0);
}
