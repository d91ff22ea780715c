//! The tar of a tree, read by other people's tar.
#![allow(clippy::unwrap_used, missing_docs)]

mod image_support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use abicus::image::tree_tar;
use image_support::{awkward_tree, listing};

#[test]
fn gnu_tar_unpacks_the_tar_of_a_tree_to_an_equal_tree() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, copy) = (dir.path().join("tree"), dir.path().join("copy"));
    awkward_tree(&tree);
    fs::create_dir(&copy).unwrap();
    let arguments = ["-x", "-p", "--xattrs", "--xattrs-include=*", "-f", "-", "-C"];
    let mut tar = Command::new("tar").args(arguments).arg(&copy).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = tar.stdin.take().unwrap();
    std::io::copy(&mut tree_tar(&tree).unwrap(), &mut stdin).unwrap();
    drop(stdin);
    assert!(tar.wait().unwrap().success());
    assert_eq!(listing(&tree), listing(&copy));
}

#[test]
fn two_readings_of_one_tree_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    awkward_tree(dir.path());
    let read = || {
        let mut bytes = Vec::new();
        tree_tar(dir.path()).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    let first = read();
    assert_eq!(first.len() % 512, 0);
    assert_eq!(first, read());
    fs::set_permissions(dir.path().join("etc/exact"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_ne!(first, read(), "a changed mode must show");
}

#[test]
fn a_tree_that_is_not_there_is_an_image_fault_with_its_path() {
    let fault = tree_tar(Path::new("/nonexistent/tree")).unwrap_err();
    assert!(fault.to_string().starts_with("image: could not open directory `/nonexistent/tree`"), "{fault}");
}
