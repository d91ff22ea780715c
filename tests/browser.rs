//! The page in a real browser, opened from a file: it works under its own policy, asks the network for nothing, filters,
//! opens by address, and takes hostile text for text.

#![allow(clippy::unwrap_used, reason = "a broken fixture has to stop the test")]

mod support;

use std::path::PathBuf;

use abicus::render::{View, render_view};
use abicus::store::Run;
use support::browser::Browser;
use support::synthetic::{self, Size};

/// A rendered report in a directory that lives as long as the test.
struct Report {
    _dir: tempfile::TempDir,
    file: PathBuf,
}

impl Report {
    fn of(run: &Run, size: Size) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let catalogue = synthetic::catalogue(size);
        let view = View::new(run, &catalogue, "2026-11-23T03:00:00Z".parse().unwrap());
        for (name, bytes) in render_view(&view).unwrap() {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        let file = dir.path().join("index.html");
        Self { _dir: dir, file }
    }

    fn small() -> Self {
        Self::of(&synthetic::run(Size::SMALL), Size::SMALL)
    }
}

/// Tiles of asked cells that are not filtered away.
const SHOWN: &str = "document.querySelectorAll('#cells a.tile:not(.off)').length";

#[test]
fn the_page_opens_from_a_file_in_any_size_and_colour_without_a_complaint() {
    let report = Report::small();
    let mut browser = Browser::start();
    for (width, height) in [(1600, 1000), (390, 844)] {
        for scheme in ["light", "dark"] {
            browser.look(width, height, scheme);
            for fragment in ["", "#matrix", "#cell=local:docker:debian-12", "#check=syscall.clone3", "#mode=lost"] {
                browser.open(&report.file, fragment);
                let wide =
                    browser.eval(&format!("Math.max(document.scrollingElement.scrollWidth, innerWidth) - {width}"));
                let culprits = browser.eval(&format!(
                    "[...document.querySelectorAll('body *')].filter((e) => !e.closest('.scroll, .vh') && \
                     e.getBoundingClientRect().right > {width} + 1).slice(0, 8).map((e) => e.outerHTML.slice(0, 90))"
                ));
                assert!(wide.as_i64().unwrap() <= 0, "{fragment} at {width} is {wide} pixels too wide: {culprits}");
                if fragment.contains("mode") {
                    browser.eval("document.getElementById('matrix').scrollIntoView()");
                }
                let view = fragment.trim_start_matches('#').split('=').next().unwrap_or_default();
                browser.picture(&format!("page-{width}-{scheme}-{}", if view.is_empty() { "top" } else { view }));
            }
        }
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
    let elsewhere: Vec<String> = browser
        .requests()
        .into_iter()
        .filter(|url| !url.ends_with("/index.html") && !url.starts_with("data:"))
        .collect();
    assert!(elsewhere.iter().all(|url| url.starts_with("file://") || url == "about:blank"), "{elsewhere:?}");
}

#[test]
fn a_filter_shows_what_it_says() {
    let report = Report::small();
    let run = synthetic::run(Size::SMALL);
    let cells = |fits: &dyn Fn(&str, &str, &str) -> bool| {
        let contained = run.info.cells.iter().filter(|(cell, role)| !role.is_control() && !cell.image.is_none());
        let skipped = run.info.skips.iter().map(|(cell, _)| cell);
        contained
            .map(|(cell, _)| cell)
            .chain(skipped)
            .filter(|c| fits(c.host.as_str(), c.engine.as_str(), c.image.as_str()))
            .count()
    };
    let mut browser = Browser::start();
    browser.look(1600, 1000, "light");
    browser.open(&report.file, "");
    for (text, expected) in [
        ("", cells(&|_, _, _| true)),
        ("engine=docker", cells(&|_, engine, _| engine == "docker")),
        ("engine:docker", cells(&|_, engine, _| engine.contains("docker"))),
        (
            "engine=docker,podman image:debian",
            cells(&|_, e, i| matches!(e, "docker" | "podman") && i.contains("debian")),
        ),
        ("libc.kind:musl -host:rack2", cells(&|host, _, image| host != "rack2" && image.starts_with("alpine"))),
        ("kernel.release>=6.1", cells(&|host, _, _| host != "rack1")),
        ("host.os.id:debian image=debian-1*", cells(&|_, _, image| image.starts_with("debian-1"))),
        ("verdict:error", 9),
        ("rack1:built-in", cells(&|host, engine, _| host == "rack1" && engine == "built-in")),
        // Two cells of docker on rack1 and the like did not run; what did not run does not fail.
        ("fails:syscall.clone3", 23),
        ("nothing.known:here", 0),
    ] {
        browser.eval("(() => { const f = document.getElementById('filter'); f.value = ''; f.focus(); })()");
        browser.type_text(text);
        browser.eval("document.getElementById('filter').dispatchEvent(new Event('input'))");
        browser.wait_for(&format!("(location.hash.match(/q=([^&]*)/) || ['', ''])[1] === encodeURIComponent({text:?}).replace(/%3A/g, ':').replace(/%2C/g, ',')"));
        assert_eq!(browser.eval(SHOWN), expected, "filter {text:?}");
    }
    assert_eq!(browser.eval("document.getElementById('filter').getAttribute('aria-invalid')"), "true");
    assert!(browser.eval("document.getElementById('status').textContent").as_str().unwrap().contains("nothing.known"));
    // Rows and columns without a match are folded away, so a filter makes the table small.
    browser.open(&report.file, "#q=engine%3Ddocker%20image%3Ddebian-12");
    assert_eq!(
        browser.eval("[...document.querySelectorAll('#cells tbody tr')].filter((row) => !row.hidden).length"),
        1
    );
    assert_eq!(browser.eval("[...document.querySelectorAll('#cells .engine')].filter((th) => !th.hidden).length"), 3);
    // Chips hide verdicts.
    browser.eval("document.querySelector('#chips button[data-verdict=fail]').click()");
    assert_eq!(browser.eval(SHOWN), 0);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_cell_opens_by_its_address_and_by_keyboard_and_tells_everything() {
    let report = Report::small();
    let mut browser = Browser::start();
    browser.look(1600, 1000, "light");
    browser.open(&report.file, "#cell=local:docker:debian-12");
    let text = |browser: &mut Browser| {
        browser.eval("(() => { for (const d of document.querySelectorAll('#detail details')) d.open = true; })()");
        browser.wait_for("document.querySelectorAll('#detail details[open]').length > 5");
        std::thread::sleep(std::time::Duration::from_millis(200));
        browser.eval("document.getElementById('detail').innerText").as_str().unwrap().to_owned()
    };
    let told = text(&mut browser);
    for expected in [
        "local:docker:debian-12",
        "Linux 6.1.0-44-amd64",
        "glibc 2.36",
        "refused with EPERM by the seccomp filter",
        "threads in every image with glibc 2.34 or newer",
        "docker 20.10.10 or newer, or a seccomp profile that answers ENOSYS",
        "clone3(2); linux 7f192e3cd316",
        "hung, killed after 3000 ms",
        "pthread_create",
        "10 checks pass natively on local and fail here",
        "exit 0",
        "evidence/local/docker/debian-12.1.stdout.zst",
        "abicus run --cells 'local:docker:debian-12'",
    ] {
        assert!(told.contains(expected), "{expected:?} is not in the panel:\n{told}");
    }
    browser.press("Escape");
    browser.wait_for("document.getElementById('detail').hidden");
    assert_eq!(browser.eval("location.hash"), "");
    browser.eval("document.querySelector('#cells a.tile').focus()");
    browser.press("ArrowRight");
    browser.press("ArrowDown");
    browser.press("Enter");
    browser.wait_for("!document.getElementById('detail').hidden");
    assert_eq!(browser.eval("document.activeElement.id"), "detail");
    assert_eq!(browser.eval("document.querySelector('#detail h2').textContent"), "rack1:docker:debian-8");
    // A cell that never ran says why and what to do.
    browser.open(&report.file, "#cell=rack2:podman:debian-12");
    let told = browser.eval("document.getElementById('detail').innerText");
    assert!(told.as_str().unwrap().contains("systemctl start podman.socket"), "{told}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn one_check_can_be_seen_in_every_cell() {
    let report = Report::small();
    let mut browser = Browser::start();
    browser.look(1600, 1000, "light");
    browser.open(&report.file, "#check=libc.thread.create");
    let told = browser.eval("document.getElementById('detail').innerText");
    assert!(told.as_str().unwrap().contains("5 cells"), "{told}");
    browser
        .eval("[...document.querySelectorAll('#detail button')].find((b) => b.textContent.includes('matrix')).click()");
    browser.wait_for("location.hash.includes('mode=check')");
    assert_eq!(browser.eval("document.querySelectorAll('#cells a.tile.fail').length"), 5);
    assert_eq!(browser.eval("document.getElementById('detail').hidden"), true);
    // What is lost against native: every failing cell, and not the checks that fail natively too.
    browser.open(&report.file, "#mode=lost");
    assert_eq!(
        browser.eval("document.querySelector('a.tile[href=\"#cell=local%3Adocker%3Adebian-12\"] .n').textContent"),
        "10"
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn without_script_the_page_still_tells_what_happened() {
    let report = Report::small();
    let mut browser = Browser::start();
    browser.look(1600, 1000, "light");
    browser.call("Emulation.setScriptExecutionDisabled", serde_json::json!({ "value": true }));
    browser.navigate(&report.file, "");
    let told = browser.eval("document.body.innerText");
    let told = told.as_str().unwrap();
    for expected in [
        "23 of 88 cells fail",
        "refused with EPERM by the seccomp filter",
        "no space left on device",
        "docker 20.10.10",
    ] {
        assert!(told.contains(expected), "{expected:?} is not in the page");
    }
    assert_eq!(browser.eval("document.querySelectorAll('#cells a.tile').length"), 96);
    assert_eq!(browser.eval("document.getElementById('tools').offsetHeight"), 0);
}

#[test]
fn hostile_text_stays_text() {
    let mut run = synthetic::run(Size::SMALL);
    synthetic::poison(&mut run);
    let report = Report::of(&run, Size::SMALL);
    let mut browser = Browser::start();
    browser.look(1600, 1000, "light");
    for fragment in [
        "",
        "#cell=local:docker:debian-12",
        "#host=local",
        "#pair=local:docker",
        "#image=debian-12",
        "#check=syscall.read",
        "#cell=<img src=x onerror=document.hacked=1>",
    ] {
        browser.open(&report.file, fragment);
        browser.eval("(() => { for (const d of document.querySelectorAll('details')) d.open = true; })()");
        std::thread::sleep(std::time::Duration::from_millis(150));
        assert_eq!(browser.eval("String(document.hacked)"), "undefined", "at {fragment}");
        assert_eq!(browser.eval("document.querySelectorAll('img, iframe, object, b[data-x], script[src]').length"), 0);
    }
    // The hostile text is there to be seen.
    browser.open(&report.file, "#host=local");
    let told = browser.eval("document.getElementById('detail').innerText");
    assert!(told.as_str().unwrap().contains("</script><img src=x"), "{told}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn thousands_of_cells_are_drawn_and_not_built() {
    let size = Size { hosts: 100, engines: 3, images: 30, fillers: 20, noise: 16 };
    let report = Report::of(&synthetic::run(size), size);
    let mut browser = Browser::start();
    browser.look(1600, 1000, "light");
    browser.open(&report.file, "");
    let nodes = browser.eval("document.querySelectorAll('*').length").as_u64().unwrap();
    assert!(nodes < 6_000, "{nodes} nodes for 9,000 cells");
    assert_eq!(browser.eval("document.getElementById('totals').hidden"), true);
    browser.eval("document.querySelector('.pan').scrollIntoView({ block: 'center' })");
    browser.picture("heat");
    let colours = "(() => { const c = document.querySelector('canvas'), p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, s = new Set(); \
                   for (let i = 0; i < p.length; i += 4) s.add(p[i] << 16 | p[i + 1] << 8 | p[i + 2]); return s; })()";
    // Vermillion of a failing cell is somewhere in the picture.
    assert_eq!(browser.eval(&format!("{colours}.has(0xd55e00)")), true);
    browser.eval("document.querySelector('.pan').focus()");
    browser.press("ArrowRight");
    browser.press("ArrowDown");
    browser.press("Enter");
    browser.wait_for("!document.getElementById('detail').hidden");
    assert!(browser.eval("location.hash").as_str().unwrap().starts_with("#cell="));
    browser.open(&report.file, "#q=engine%3Ddocker");
    let status = browser.eval("document.getElementById('status').textContent");
    assert!(status.as_str().unwrap().starts_with("3,000 of 9,100 cells"), "{status}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn the_junit_file_is_well_formed_whatever_hosts_say() {
    let mut run = synthetic::run(Size::SMALL);
    synthetic::poison(&mut run);
    let report = Report::of(&run, Size::SMALL);
    let xml = std::fs::read_to_string(report.file.with_file_name("junit.xml")).unwrap();
    let mut browser = Browser::start();
    let parsed = browser.eval(&format!(
        "(() => {{ const d = new DOMParser().parseFromString({}, 'application/xml'); \
         return [d.querySelectorAll('parsererror').length, d.querySelectorAll('testcase').length, d.querySelectorAll('img').length]; }})()",
        serde_json::to_string(&xml).unwrap()
    ));
    assert_eq!(parsed, serde_json::json!([0, 99, 0]));
}
