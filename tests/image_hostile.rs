//! Archives that try to get out of their root, or to cost more than they may: one trick a test.
#![allow(clippy::unwrap_used, missing_docs)]

mod image_support;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::time::{Duration, Instant};

use abicus::image::{Limits, Source};
use image_support::{Bench, Layout, Tape, gzip, hex, is_root, saved, tree};

fn refused(bench: &Bench, archive: &[u8], why: &str) {
    let fault = bench.rootfs(archive).map(|image| image.digest).unwrap_err();
    assert!(fault.cause.contains(why), "refused, but for another reason: {fault}");
    bench.assert_outside_untouched();
}

#[test]
fn a_path_that_climbs_is_refused() {
    let bench = Bench::new();
    for path in [&format!("{}/new", Bench::CLIMB), "a/../../../../../victim/new", "..", "a/.."] {
        refused(&bench, &Tape::new().dir("a").file(path, "x").end(), "climbs out of the root");
    }
}

#[test]
fn an_absolute_path_is_inside_the_root() {
    let bench = Bench::new();
    let path = bench.victim().join("new").display().to_string();
    let image = bench.rootfs(&Tape::new().file(&path, "x").end()).unwrap();
    assert_eq!(fs::read(tree(&image).join(&path[1..])).unwrap(), b"x");
    bench.assert_outside_untouched();
}

#[test]
fn a_file_below_a_link_to_the_outside_stays_inside() {
    let bench = Bench::new();
    for target in [bench.victim().display().to_string(), Bench::CLIMB.to_owned(), format!("a/../{}", Bench::CLIMB)] {
        let archive = Tape::new().dir("a").symlink("link", &target).file("link/new", "x").file("link/file", "x").end();
        let image = bench.rootfs(&archive).unwrap();
        assert_eq!(fs::read_link(tree(&image).join("link")).unwrap().to_str(), Some(target.as_str()));
        bench.assert_outside_untouched();
    }
}

#[test]
fn a_link_to_a_link_to_the_outside_stays_inside() {
    let bench = Bench::new();
    let archive = Tape::new()
        .symlink("one", &bench.victim().display().to_string())
        .symlink("two", "one")
        .symlink("three", "../../two/.")
        .file("three/new", "x")
        .end();
    bench.rootfs(&archive).unwrap();
    bench.assert_outside_untouched();
}

#[test]
fn a_file_replaces_a_link_and_is_not_written_through_it() {
    let bench = Bench::new();
    let target = bench.victim().join("file").display().to_string();
    let image = bench.rootfs(&Tape::new().symlink("f", &target).file("f", "new").end()).unwrap();
    assert!(fs::symlink_metadata(tree(&image).join("f")).unwrap().is_file());
    bench.assert_outside_untouched();
}

#[test]
fn mode_and_owner_of_a_link_are_not_set_on_its_target() {
    let bench = Bench::new();
    let target = bench.victim().join("file").display().to_string();
    let archive = Tape::new()
        .raw(b'2', "f", &target, b"", |header| {
            header.set_mode(0o7777);
            header.set_uid(1234);
        })
        .end();
    bench.rootfs(&archive).unwrap();
    bench.assert_outside_untouched();
    assert_ne!(fs::metadata(bench.victim().join("file")).unwrap().uid(), 1234);
    let age = fs::metadata(bench.victim().join("file")).unwrap().modified().unwrap().elapsed().unwrap();
    assert!(age < Duration::from_secs(3600), "nor is the time of 2001");
}

#[test]
fn links_in_a_circle_are_refused() {
    let archive = Tape::new().symlink("a", "b").symlink("b", "a").file("a/x", "x").end();
    refused(&Bench::new(), &archive, "in a circle");
}

#[test]
fn links_that_double_at_each_step_are_refused_soon() {
    let bench = Bench::new();
    let mut tape = Tape::new().dir("d");
    for level in 1..40 {
        let below = if level == 1 { "d".to_owned() } else { format!("l{}", level - 1) };
        tape = tape.symlink(&format!("l{level}"), &format!("{below}/../{below}"));
    }
    let started = Instant::now();
    refused(&bench, &tape.file("l39/x", "x").end(), "in a circle");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_hard_link_to_the_outside_is_refused() {
    let bench = Bench::new();
    let file = bench.victim().join("file").display().to_string();
    refused(&bench, &Tape::new().link("f", &format!("{}/file", Bench::CLIMB)).end(), "climbs out of the root");
    refused(&bench, &Tape::new().link("f", &file).end(), "which is not there");
    let through = Tape::new().symlink("l", &bench.victim().display().to_string()).link("f", "l/file").end();
    refused(&bench, &through, "which is not there");
    assert_eq!(fs::metadata(bench.victim().join("file")).unwrap().nlink(), 1);
}

#[test]
fn a_hard_link_to_a_link_names_the_link_and_not_its_target() {
    let bench = Bench::new();
    let file = bench.victim().join("file").display().to_string();
    let image = bench.rootfs(&Tape::new().symlink("l", &file).link("f", "l").end()).unwrap();
    assert!(fs::symlink_metadata(tree(&image).join("f")).unwrap().is_symlink());
    assert_eq!(fs::metadata(bench.victim().join("file")).unwrap().nlink(), 1);
    let image = bench.rootfs(&Tape::new().symlink("l", &file).link("f", "l").file("f", "new").end()).unwrap();
    assert!(fs::symlink_metadata(tree(&image).join("l")).unwrap().is_symlink());
    assert_eq!(fs::read(tree(&image).join("f")).unwrap(), b"new");
    bench.assert_outside_untouched();
    assert_eq!(fs::metadata(bench.victim().join("file")).unwrap().nlink(), 1);
}

#[test]
fn a_hard_link_to_a_directory_is_refused() {
    refused(&Bench::new(), &Tape::new().dir("d").link("f", "d").end(), "hard link to a directory");
}

#[test]
fn a_file_replaces_a_pipe_and_never_waits_for_it() {
    let bench = Bench::new();
    let image = bench.rootfs(&Tape::new().fifo("p").file("p", "data").fifo("etc/os-release").end()).unwrap();
    assert_eq!(fs::read(tree(&image).join("p")).unwrap(), b"data");
    assert!(fs::symlink_metadata(tree(&image).join("etc/os-release")).unwrap().file_type().is_fifo());
}

#[test]
fn a_file_replaces_a_device_and_is_not_written_to_it() {
    let bench = Bench::new();
    // Device 1:7 answers every write with "no space left".
    let archive = Tape::new().device(b'3', "full", 1, 7).device(b'4', "disk", 7, 250);
    let image = bench.rootfs(&archive.file("full", "data").end()).unwrap();
    assert_eq!(fs::read(tree(&image).join("full")).unwrap(), b"data");
    if is_root() {
        assert!(fs::symlink_metadata(tree(&image).join("disk")).unwrap().file_type().is_block_device());
    } else {
        assert_eq!(image.facts["tree.dropped"], "devices ownership");
    }
}

#[test]
fn the_device_that_overlayfs_takes_for_a_deletion_is_not_made() {
    let bench = Bench::new();
    let image = bench.rootfs(&Tape::new().device(b'3', "gone", 0, 0).file("x", "x").end()).unwrap();
    assert!(!tree(&image).join("gone").exists());
    let lower = Tape::new().file("gone", "x").file("x", "x").end();
    let image = bench.layers(&[lower, Tape::new().device(b'3', "gone", 0, 0).end()]).unwrap();
    assert!(!tree(&image).join("gone").exists(), "in a layer it deletes, as overlayfs would");
    assert!(tree(&image).join("x").exists());
}

#[test]
fn attributes_that_steer_overlayfs_or_label_this_machine_are_not_set() {
    let bench = Bench::new();
    let names = ["trusted.overlay.redirect", "user.overlay.opaque", "security.selinux", "user.fine"];
    let records: Vec<(String, &str)> = names.iter().map(|name| (format!("SCHILY.xattr.{name}"), "y")).collect();
    let records: Vec<(&str, &str)> = records.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    let archive = Tape::new().pax(&records).file("f", "").pax(&records).dir("d").end();
    let image = bench.rootfs(&archive).unwrap();
    for name in ["f", "d"] {
        let mut list = vec![0; 4096];
        let size = rustix::fs::llistxattr(tree(&image).join(name), list.as_mut_slice()).unwrap();
        assert_eq!(String::from_utf8_lossy(&list[..size]), "user.fine\0", "on {name}");
    }
}

#[test]
fn names_in_extension_headers_are_checked_like_others() {
    let bench = Bench::new();
    let climb = format!("{}/new", Bench::CLIMB);
    let file = format!("{}/file", Bench::CLIMB);
    refused(&bench, &Tape::new().pax(&[("path", &climb)]).file("ok", "x").end(), "climbs");
    refused(&bench, &Tape::new().file("ok", "").pax(&[("linkpath", &file)]).link("f", "ok").end(), "climbs");
    let gnu = Tape::new().raw(b'L', "././@LongLink", "", format!("{climb}\0").as_bytes(), |_| {});
    refused(&bench, &gnu.file("ok", "x").end(), "climbs");
    let gnu = Tape::new().file("ok", "").raw(b'K', "././@LongLink", "", format!("{file}\0").as_bytes(), |_| {});
    refused(&bench, &gnu.link("f", "ok").end(), "climbs");
    let sparse = [("GNU.sparse.name", climb.as_str()), ("GNU.sparse.map", "0,1"), ("GNU.sparse.size", "1")];
    refused(&bench, &Tape::new().pax(&sparse).file("ok", "x").end(), "climbs");
    let prefix = Tape::new().raw(b'0', "victim/new", "", b"x", |header| {
        header.as_mut_bytes()[345..356].copy_from_slice(b"../../../..");
    });
    refused(&bench, &prefix.end(), "climbs");
}

#[test]
fn zero_bytes_in_names_are_refused() {
    refused(&Bench::new(), &Tape::new().pax(&[("path", "a\0b")]).file("ok", "x").end(), "zero byte");
}

#[test]
fn the_root_itself_cannot_be_replaced() {
    let bench = Bench::new();
    let victim = bench.victim().display().to_string();
    for path in [".", "./", "/", "//./"] {
        refused(&bench, &Tape::new().symlink(path, &victim).file("new", "x").end(), "replace the root");
    }
    refused(&bench, &Tape::new().file(".", "x").end(), "replace the root");
}

#[test]
fn a_directory_replaced_by_a_link_in_a_later_layer_leads_nowhere_outside() {
    let bench = Bench::new();
    let victim = bench.victim().display().to_string();
    let layers = [
        Tape::new().dir("d").file("d/file", "lower").end(),
        Tape::new().symlink("d", &victim).end(),
        Tape::new().file("d/file", "upper").file("d/.wh.file", "").end(),
    ];
    let image = bench.layers(&layers).unwrap();
    assert_eq!(fs::read(tree(&image).join(&victim[1..]).join("file")).unwrap(), b"upper");
    bench.assert_outside_untouched();
}

#[test]
fn a_deletion_below_a_link_to_the_outside_deletes_nothing_there() {
    let bench = Bench::new();
    let victim = bench.victim().display().to_string();
    for target in [victim.as_str(), Bench::CLIMB] {
        let lower = Tape::new().symlink("l", target).end();
        for deletion in ["l/.wh.file", "l/.wh..wh..opq"] {
            bench.layers(&[lower.clone(), Tape::new().file(deletion, "").end()]).unwrap();
            bench.assert_outside_untouched();
        }
    }
}

#[test]
fn a_deletion_of_the_directory_it_stands_in_is_refused() {
    let bench = Bench::new();
    for name in [".wh..", ".wh...", ".wh.", "d/.wh...", "d/.wh.."] {
        let layers = [Tape::new().dir("d").file("keep", "x").end(), Tape::new().file(name, "").end()];
        let fault = bench.layers(&layers).map(|image| image.digest).unwrap_err();
        assert!(fault.cause.contains("from inside it"), "{name}: {fault}");
        bench.assert_outside_untouched();
    }
    let climb = Tape::new().file("../../../../victim/.wh.file", "").end();
    assert!(bench.layers(&[climb]).unwrap_err().cause.contains("climbs"));
    bench.assert_outside_untouched();
}

#[test]
fn sizes_that_no_disk_has_are_refused_before_anything_is_written() {
    let bench = Bench::new();
    let huge = i64::MAX.to_string();
    refused(&bench, &Tape::new().pax(&[("size", &huge)]).file("f", "x").end(), "bytes of files");
    refused(&bench, &Tape::new().pax(&[("size", "18446744073709551615")]).file("f", "x").end(), "a size that no file");
    let base256 = Tape::new().raw(b'0', "f", "", b"x", |header| {
        header.as_mut_bytes()[124..136]
            .copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    });
    refused(&bench, &base256.end(), "bytes of files");
    let sparse = [("GNU.sparse.map", "0,1"), ("GNU.sparse.size", &huge)];
    refused(&bench, &Tape::new().pax(&sparse).file("f", "x").end(), "bytes of files");
}

#[test]
fn maps_of_sparse_files_that_lie_are_refused() {
    let bench = Bench::new();
    for (map, size) in [("0,9", "4"), ("2,1,0,1", "4"), ("0,18446744073709551615", "4"), ("0,1", "4"), ("1,2", "2")] {
        let sparse = [("GNU.sparse.map", map), ("GNU.sparse.size", size)];
        refused(&bench, &Tape::new().pax(&sparse).file("f", "xx").end(), "sparse file");
    }
}

#[test]
fn an_extension_header_larger_than_any_is_refused_unread() {
    let bench = Bench::new();
    for flag in [b'x', b'g', b'L', b'K'] {
        let archive = Tape::new().raw(flag, "x", "", b"", |header| header.set_size(7 << 30));
        refused(&bench, &archive.file("f", "x").end(), "an extension header of");
    }
}

#[test]
fn bombs_are_stopped_by_ratio_by_bytes_and_by_entries() {
    let mut bench = Bench::new();
    let zeros = Tape::new().raw(b'0', "zeros", "", &vec![0; 8 << 20], |_| {}).end();
    bench.limits = Limits { ratio_from: 1 << 20, ..Limits::default() };
    refused(&bench, &gzip(&zeros), "times their size");
    refused(&bench, &zstd::encode_all(zeros.as_slice(), 19).unwrap(), "times their size");
    bench.limits = Limits { bytes: 1 << 20, ..Limits::default() };
    refused(&bench, &zeros, "more than 1048576 bytes of files");
    let many = (0..100).fold(Tape::new(), |tape, at| tape.file(&format!("f{at}"), ""));
    bench.limits = Limits { entries: 50, ..Limits::default() };
    refused(&bench, &many.clone().end(), "more than 50 entries");
    let layers: Vec<Vec<u8>> = (0..10).map(|at| Tape::new().file(&format!("f{at}"), "").end()).collect();
    bench.limits = Limits { entries: 9, ..Limits::default() };
    assert!(bench.layers(&layers).unwrap_err().cause.contains("more than 9 entries"), "layers count together");
}

#[test]
fn directories_nested_without_end_are_refused() {
    let bench = Bench::new();
    let deep = "d/".repeat(300);
    refused(&bench, &Tape::new().pax(&[("path", &format!("{deep}f"))]).file("x", "").end(), "nested deeper");
    // By a link at a time the same depth is reached with short paths.
    let part = "d/".repeat(40);
    let mut tape = Tape::new();
    for at in 0..10 {
        let below = if at == 0 { String::new() } else { format!("l{}/", at - 1) };
        tape = tape.dir(&format!("{below}{part}")).symlink(&format!("l{at}"), &format!("/{below}{part}"));
    }
    refused(&bench, &tape.end(), "nested deeper");
    refused(
        &bench,
        &Tape::new().pax(&[("path", &"p".repeat(5000))]).file("x", "").end(),
        "longer than the kernel allows",
    );
    refused(&bench, &Tape::new().pax(&[("path", &"p".repeat(300))]).file("x", "").end(), "too long");
}

#[test]
fn an_archive_that_is_cut_off_anywhere_is_refused() {
    let bench = Bench::new();
    let whole = Tape::new().pax(&[("path", "long")]).file("x", "some data").dir("d").end();
    bench.rootfs(&whole).unwrap();
    for length in (0..=whole.len() - 1024).step_by(128) {
        assert!(bench.rootfs(&whole[..length]).is_err(), "cut at {length}");
        bench.assert_outside_untouched();
    }
}

#[test]
fn what_a_saved_image_names_is_looked_up_in_the_archive_only() {
    let bench = Bench::new();
    let outside = bench.victim().join("file").display().to_string();
    for layer in [outside.as_str(), "../victim/file", "alias"] {
        let manifest = format!("[{{\"Config\":\"c.json\",\"RepoTags\":null,\"Layers\":[\"{layer}\"]}}]");
        let config = "{\"os\":\"linux\",\"rootfs\":{\"diff_ids\":[\"sha256:".to_owned() + &"0".repeat(64) + "\"]}}";
        let tape = Tape::new().file("c.json", &config).symlink("alias", &outside).file("manifest.json", &manifest);
        let fault = bench
            .open(&Source::Archive { path: bench.write("a.tar", &tape.end()), tag: None })
            .map(|_| ())
            .unwrap_err();
        assert!(fault.cause.contains("has no file"), "{layer}: {fault}");
    }
    let circle = Tape::new().symlink("manifest.json", "b").symlink("b", "manifest.json").end();
    assert!(bench.open(&Source::Archive { path: bench.write("a.tar", &circle), tag: None }).is_err());
}

#[test]
fn what_a_layout_names_is_looked_up_in_the_layout_only() {
    let bench = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout(dir.path());
    let source = Source::Layout { path: dir.path().to_path_buf(), tag: None };
    let kind = "application/vnd.oci.image.manifest.v1+json";
    for digest in ["sha256:../../../../etc/passwd", "../../etc/passwd", "sha256:", "md5:00"] {
        layout.write_index(&[format!("{{\"mediaType\":\"{kind}\",\"digest\":\"{digest}\",\"size\":1}}")]);
        let fault = bench.open(&source).map(|_| ()).unwrap_err();
        assert!(fault.cause.contains("is not a SHA-256 digest"), "{digest}: {fault}");
    }
    // A link out of the layout is followed as if the layout were the root.
    let secret = bench.write("secret.tar", b"{}");
    let digest = hex(b"{}");
    layout.write_index(&[format!("{{\"mediaType\":\"{kind}\",\"digest\":\"sha256:{digest}\",\"size\":2}}")]);
    fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
    symlink(&secret, dir.path().join("blobs/sha256").join(&digest)).unwrap();
    let fault = bench.open(&source).map(|_| ()).unwrap_err();
    assert!(fault.cause.contains("has no file"), "{fault}");
}

#[test]
fn indexes_in_indexes_without_end_are_refused() {
    let bench = Bench::new();
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout(dir.path());
    let mut descriptor = layout.image(&[], "amd64", <[u8]>::to_vec, "");
    for _ in 0..10 {
        let (digest, size) = layout.blob(layout.index(&[descriptor]).as_bytes());
        descriptor = format!("{{\"mediaType\":\"x\",\"digest\":\"{digest}\",\"size\":{size}}}");
    }
    layout.write_index(&[descriptor]);
    let fault = bench.open(&Source::Layout { path: dir.path().to_path_buf(), tag: None }).map(|_| ()).unwrap_err();
    assert!(fault.cause.contains("indexes in indexes"), "{fault}");
}

#[test]
fn a_manifest_larger_than_any_is_refused_unread() {
    let bench = Bench::new();
    let tape = Tape::new().raw(b'0', "manifest.json", "", &vec![b' '; 5 << 20], |_| {});
    let fault =
        bench.open(&Source::Archive { path: bench.write("a.tar", &tape.end()), tag: None }).map(|_| ()).unwrap_err();
    assert!(fault.cause.contains("`manifest.json` of 5242880 bytes"), "{fault}");
}

#[test]
fn looking_at_an_image_never_leaves_it() {
    let bench = Bench::new();
    fs::write(bench.victim().join("file"), "untouched").unwrap();
    let outside = bench.write("os-release.tar", b"ID=stolen\n");
    for target in [outside.display().to_string(), "../../../../../../os-release.tar".to_owned()] {
        let image = bench.rootfs(&Tape::new().symlink("etc/os-release", &target).end()).unwrap();
        assert_eq!(image.facts.get("os.id"), None, "by {target}");
    }
    let image = bench.rootfs(&Tape::new().file("etc/os-release", "ID=\"a\u{1b}[31mb\"\n").end()).unwrap();
    assert_eq!(image.facts["os.id"], "a[31mb");
}

#[test]
fn a_saved_image_whose_layer_was_exchanged_is_refused() {
    let bench = Bench::new();
    let (good, bad) = (Tape::new().file("f", "good").end(), Tape::new().file("f", "evil").end());
    let archive = saved(std::slice::from_ref(&good));
    let at = archive.windows(good.len()).position(|window| window == good.as_slice()).unwrap();
    let mut exchanged = archive.clone();
    exchanged[at..at + bad.len()].copy_from_slice(&bad);
    let fault =
        bench.open(&Source::Archive { path: bench.write("a.tar", &exchanged), tag: None }).map(|_| ()).unwrap_err();
    assert!(fault.cause.contains(&format!("sha256:{} was promised", hex(&good))), "{fault}");
    let trees = fs::read_dir(bench.dir.path().join("cache/trees")).unwrap().count();
    assert_eq!(trees, 0, "nothing of it is kept");
    bench.open(&Source::Archive { path: bench.write("a.tar", &archive), tag: None }).unwrap();
}
