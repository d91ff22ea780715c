//! Checks that differ only in a path or a name: a line of text each, `id verb argument…`. So small because there are
//! hundreds of them; the verbs are in `ask`.
//!
//! Goes in: the texts `ROWS` of the subjects. Comes out: the same as checks. Must not know: what they mean.

use super::look::*;
use super::said::*;
use super::{capability, cgroup, device, limit, module, namespace, proc, security, setting, sys_files};
use crate::check::{self, Asked, Check, How};
use crate::rt::consts::*;
use crate::rt::sys;
use crate::rt::text::number;

static TEXTS: &[&str] = &[
    proc::ROWS,
    sys_files::ROWS,
    device::ROWS,
    cgroup::ROWS,
    capability::ROWS,
    security::ROWS,
    namespace::ROWS,
    limit::ROWS,
    setting::ROWS,
    module::ROWS,
];

fn rows() -> impl Iterator<Item = &'static str> {
    TEXTS.iter().flat_map(|text| text.lines()).filter(|line| !line.is_empty())
}

/// The table as checks, made once by the process that asks. Never freed.
pub fn checks() -> &'static [Check] {
    let count = rows().count();
    let Ok(room) = sys::map(count * size_of::<Check>(), PROT_READ | PROT_WRITE, MAP_PRIVATE) else { return &[] };
    let room = room.cast::<Check>();
    for (i, row) in rows().enumerate() {
        let id = row.split(' ').next().unwrap_or(row);
        // SAFETY: below `count`, for which there is room.
        unsafe { room.add(i).write(Check { id, how: How::Batch, run }) };
    }
    // SAFETY: `count` checks were written there, and nobody else knows the place.
    unsafe { core::slice::from_raw_parts(room, count) }
}

/// The id is a piece of its line, so the rest of the line follows it.
fn run() -> Asked {
    let id = check::asked();
    for text in TEXTS {
        let rest = (id.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
        if let Some(line) = text.get(rest..).and_then(|rest| rest.lines().next()) {
            return told(ask(line));
        }
    }
    told(Err(not_asked("no such row")))
}

fn ask(line: &'static str) -> Does {
    let mut words = line.splitn(4, ' ');
    let mut next = || words.next().unwrap_or("");
    let (id, verb, first, rest) = (next().as_bytes(), next(), next(), next());
    let (name, text) = (first.as_bytes(), rest.as_bytes());
    let path = Path::of(&[name]);
    let path = path.c();
    let n = || number(name, 10).unwrap_or(0);
    match verb {
        // files
        "mounted" => mounted(path, number(text, 16).unwrap_or(0)),
        "starts" => has(path, rest, &mut |line| line.starts_with(text)),
        "has" => has(path, rest, &mut |line| within(line, text)),
        "reads" => reads(path),
        "opens" => opens(path),
        "says" => content(path),
        "lists" => lists(path, text),
        "link" => proc::slash(path),
        "leads" => holds("leads elsewhere", link(path)?.bytes() == text),
        // what engines do to them
        "masked" => masking(path),
        "hidden" => masking_unread(path),
        "written" => writing(path),
        // devices: without opening, with opening
        "kind" => device::kind(path),
        "device" => device::device(path),
        // by name or number
        "sysctl" => setting::setting(id),
        "cap" => capability::effective(n() as u32),
        "limit" => limit::limit(n() as usize, usize::from(text == b"1")),
        "status" => Err(answer(field(c"/proc/self/status", name)?.bytes())),
        "whose" => namespace::whose(path),
        "mapped" => namespace::mapped(path),
        "controller" => cgroup::controller(name),
        "group" | "group-reads" => {
            let (two, one) = rest.split_once(' ').unwrap_or((rest, rest));
            let path = cgroup::own_file(name, two.as_bytes(), one.as_bytes());
            match verb {
                "group" => cgroup::limit(path.c()),
                _ => reads(path.c())
                    .map_err(|no| if cgroup::at_root(name) { not_asked("the root of the control groups") } else { no }),
            }
        }
        // what is registered
        "type" => module::file_system_type(name),
        "protocol" => module::protocol(name),
        "misc" => module::misc(name),
        "family" => module::family(name),
        "netlink" => module::netlink(name),
        "exists" => module::exists(path),
        _ => Err(not_asked("no such verb")),
    }
}
