//! One daemon by three ways: its socket here, the same socket over SSH, TLS. Needs root, docker, openssl and the fixtures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod engine_support;
mod host_support;

use std::fs;

use engine_support::remote::{Remote, authority, certificate};
use host_support::{Desk, Lab};

#[test]
fn an_image_answers_the_same_through_a_socket_here_over_ssh_and_over_tls() {
    let fixtures =
        std::env::var("ABICUS_FIXTURES").expect("ABICUS_FIXTURES names the test root file systems: run ci/test");
    let desk = Desk::new();
    let certificates = desk.path("tls");
    fs::create_dir(&certificates).unwrap();
    authority(&certificates, "ca");
    certificate(&certificates, "server", "ca", 1);
    certificate(&certificates, "client", "ca", 1);
    let remote = Remote::new(&desk.path("docker"), &certificates, "server");
    // Whoever comes by SSH finds this daemon where docker's socket always is.
    let lab = Lab::seeing(desk, &[("docker/docker.sock", "/var/run/docker.sock")]);
    let before = lab.left();
    let tls = "{ ca = 'tls/ca.pem', cert = 'tls/client.pem', key = 'tls/client-key.pem' }";
    let hosts = format!(
        "[[host]]\nname = 'local'\n[[host]]\nname = 'tls'\nendpoint = 'tcp://127.0.0.1:{}'\ntls = {tls}\n",
        remote.port
    );
    let image = format!("[[image]]\nname = 'debian'\nrootfs = '{fixtures}/bookworm'\n");
    lab.matrix(&["box"], &format!("{hosts}[[engine]]\nname = 'docker'\nkind = 'docker'\n{image}"));
    let socket = format!("unix://{}", remote.daemon.socket.display());
    let mut run = lab.command(&["run", "--no-controls"]);
    let output = run.env("DOCKER_HOST", socket).output().unwrap();
    let (said, cells) = (String::from_utf8_lossy(&output.stderr), lab.cells());
    let engine = |host: &str| &cells[&format!("{host}:docker:debian")];
    for host in ["local", "box", "tls"] {
        let cell = engine(host);
        assert_eq!((cell["error"].as_str(), cell["miss"].as_str()), ("0", "0"), "{host}: {said}");
        assert!(cell["pass"].parse::<u32>().unwrap() > 1000, "{host}: {cell:?}");
        for image in ["debian", "empty"] {
            let [here, there] = ["local", host].map(|host| &cells[&format!("{host}:docker:{image}")]["vector"]);
            let results = fs::read_to_string(lab.newest_run().join("results.csv")).unwrap();
            let of = |vector: &str| -> Vec<String> {
                let rows = results.lines().filter(|line| line.contains(vector));
                rows.map(|row| row.split_once(vector).unwrap().1.to_owned()).collect()
            };
            let (a, b) = (of(here), of(there));
            let differ: Vec<_> = b.iter().filter(|row| !a.contains(row)).collect();
            assert_eq!(here, there, "{host}:docker:{image} answers differently: {differ:#?}");
        }
    }
    lab.assert_nothing_is_left(&before);
}
