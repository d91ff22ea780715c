//! Images by reference: those an engine has, those it must pull, those there are not, and getting one out.
//!
//! Root, dockerd, podman and busybox-static are needed; what is absent fails the test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod engine_support;

use std::path::Path;
use std::process::Command;

use abicus::engine::Engine;
use abicus::engine::container::{ContainerEngine, Kind};
use abicus::fault::Phase;
use abicus::image::{Content, Image};
use engine_support::{Bench, Daemon, engine, image, options, says};

fn docker(text: &str) -> ContainerEngine {
    engine(Kind::Docker, Path::new("/var/run/docker.sock"), options(text))
}

fn reference(name: &str) -> Image {
    image("test-reference", "", Content::Reference(name.to_owned()))
}

#[tokio::test]
async fn an_image_the_engine_has_is_used_as_it_is_and_can_be_saved() {
    let (bench, engine) = (Bench::new(), docker(""));
    let cached = engine.prepare(&bench.tree()).await.unwrap();
    let name = format!("abicus-test/{}:1", bench.run.as_str().to_lowercase());
    assert!(Command::new("docker").args(["tag", &cached.0, &name]).status().unwrap().success());

    let prepared = engine.prepare(&reference(&name)).await.unwrap();
    let said = says(&engine, &bench, &prepared, "/.abicus/busybox cat /etc/os-release").await;
    assert!(said.contains("ID=abicus-test"), "{said}");

    let archive = bench.dir().join("saved.tar");
    engine.export(&name, &archive).await.unwrap();
    let mut archive = tar::Archive::new(std::fs::File::open(&archive).unwrap());
    let names: Vec<_> = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    assert!(names.iter().any(|n| n == "manifest.json"), "{names:?}");

    assert!(Command::new("docker").args(["rmi", &name]).output().unwrap().status.success());
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_an_error_of_the_image_with_advice() {
    let bench = Bench::new();
    let service = Daemon::podman(&bench.dir().join("podman"), &["--runtime", "crun"]);
    let podman = engine(Kind::Podman, &service.socket, options(""));
    // Nothing listens on port 1: docker says so with a status, podman in a stream that began with 200.
    for engine in [docker(""), podman] {
        let fault = engine.prepare(&reference("127.0.0.1:1/no/such:image")).await.unwrap_err();
        assert!(fault.phase == Phase::Image && fault.cause.contains("127.0.0.1:1/no/such:image"), "{fault:?}");
        assert!(fault.hint.as_deref().is_some_and(|h| h.contains("registry")), "{fault:?}");
    }
}

#[tokio::test]
async fn what_is_no_reference_is_refused_before_the_engine_sees_it() {
    for bad in ["../../containers/json?x=", "a b", "-rm", ""] {
        let fault = docker("").prepare(&reference(bad)).await.unwrap_err();
        assert!(fault.cause.contains("is not an image reference"), "{fault:?}");
    }
}

#[tokio::test]
async fn an_image_of_another_architecture_is_refused_in_words() {
    let bench = Bench::new();
    let mut image = bench.tree();
    image.architecture = Some("s390x".to_owned());
    let fault = docker("").prepare(&image).await.unwrap_err();
    assert!(fault.phase == Phase::Prepare && fault.cause.contains("s390x"), "{fault:?}");
    assert!(fault.hint.is_some());
}
