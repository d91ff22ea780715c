//! Root file systems made from packages. Needs mmdebstrap, a mirror, and minutes: `cargo test -- --ignored`.
#![allow(clippy::unwrap_used, missing_docs)]

mod image_support;

use std::fs;
use std::sync::Arc;

use abicus::image::{Bootstrap, Image, Progress, Source, Step};
use image_support::{Bench, listing, tree};

fn suite(suite: &str, arch: Option<&str>) -> Source {
    let arch = arch.map(str::to_owned);
    Source::Bootstrap(Bootstrap { suite: suite.to_owned(), arch, variant: None, include: vec![] })
}

fn open(bench: &Bench, source: &Source) -> Result<Image, abicus::fault::Fault> {
    let loud: Progress = Arc::new(|step: Step<'_>| {
        if step.done == 0 {
            eprintln!("  {}", step.what);
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(bench.store().open(&"test".parse().unwrap(), source, bench.dir.path(), "amd64", loud))
}

#[test]
#[ignore = "needs mmdebstrap, a mirror and two minutes"]
fn the_same_packages_make_the_same_tree_with_nothing_of_this_machine_in_it() {
    let (one, two) = (Bench::new(), Bench::new());
    let source = suite("bookworm", None);
    let (first, second) = (open(&one, &source).unwrap(), open(&two, &source).unwrap());
    assert_eq!(first.digest, second.digest);
    assert_eq!(first.facts, second.facts);
    assert_eq!(listing(tree(&first)), listing(tree(&second)));
    let root = tree(&first);
    for gone in ["etc/hostname", "etc/resolv.conf", "var/log/dpkg.log", "var/log/apt", "var/lib/dbus/machine-id"] {
        assert!(!root.join(gone).exists(), "{gone}");
    }
    let machine = fs::read_to_string(root.join("etc/machine-id")).unwrap_or_default();
    assert!(["", "uninitialized"].contains(&machine.trim()), "{machine}");
    let lists =
        image_support::run("find", &[root.join("var/lib/apt/lists").to_str().unwrap(), "-type", "f", "-size", "+0"]);
    assert_eq!(lists, "");

    let facts = &first.facts;
    assert_eq!((facts["os.id"].as_str(), facts["os.version"].as_str()), ("debian", "12"));
    assert_eq!((facts["libc.kind"].as_str(), facts["libc.version"].as_str()), ("glibc", "2.36"));
    assert_eq!((facts["arch"].as_str(), facts["bootstrap.arch"].as_str()), ("amd64", "amd64"));
    assert!(facts["bootstrap.tool"].starts_with("mmdebstrap "));
    assert!(facts["bootstrap.suite.date"].starts_with("20") && facts["created"] == facts["bootstrap.suite.date"]);
    let again = open(&one, &source).unwrap();
    assert_eq!(again.facts, first.facts, "what is remembered is what was found");
}

#[test]
#[ignore = "needs mmdebstrap, a mirror and a minute"]
fn an_i386_suite_whose_release_file_has_expired_is_made_on_amd64() {
    let bench = Bench::new();
    let image = open(&bench, &suite("bullseye", Some("i386"))).unwrap();
    assert_eq!(image.architecture.as_deref(), Some("386"));
    assert_eq!(image.loader.as_deref(), Some("/lib/ld-linux.so.2"));
    let without = image.facts.get("bootstrap.without").map(String::as_str);
    assert!([None, Some("security")].contains(&without), "{without:?}");
    assert_eq!((image.facts["libc.version"].as_str(), image.facts["bootstrap.arch"].as_str()), ("2.31", "i386"));
}

#[test]
#[ignore = "needs mmdebstrap and a mirror"]
fn a_suite_that_does_not_exist_is_said_with_what_apt_said() {
    let bench = Bench::new();
    let fault = open(&bench, &suite("nosuchsuite", None)).map(|_| ()).unwrap_err();
    assert!(fault.cause.contains("could not make suite `nosuchsuite`"), "{fault}");
    assert!(fault.hint.unwrap().contains("by hand"));
    bench.assert_outside_untouched();
}
