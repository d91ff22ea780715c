//! Names of hosts, users and services, without a network.
//!
//! Goes in: the image's own files (/etc/hosts, /etc/passwd, /etc/nsswitch.conf). Comes out: whether the libc finds what
//! stands there. Must not know: a name server; a name that stands in no file is never asked for, because the answer
//! would depend on the network and take its time.

use core::ffi::{CStr, c_char, c_int};

use crate::api::{AddrInfo, Any, Opaque};
use crate::cell::{Cell, Kind};
use crate::rt::consts::*;
use crate::rt::sys;
use crate::saw::{Answer, Saw, Seen, expect};
use crate::thread::any;
use crate::{Check, not_asked, value};

pub const CHECKS: &[Check] = &[
    Check::new("libc.name.localhost.v4", localhost_v4),
    Check::new("libc.name.localhost.v6", localhost_v6),
    Check::new("libc.name.localhost.thread", localhost_thread),
    Check::new("libc.name.hostname", hostname),
    Check::new("libc.name.numeric.v4", numeric_v4),
    Check::new("libc.name.numeric.v6", numeric_v6),
    Check::new("libc.name.passive", passive),
    Check::new("libc.name.service", service),
    Check::new("libc.name.protocol", protocol),
    Check::new("libc.name.getnameinfo", getnameinfo),
    Check::new("libc.name.gethostbyname", gethostbyname),
    Check::new("libc.name.nsswitch.hosts", nsswitch_hosts),
    Check::new("libc.name.nsswitch.passwd", nsswitch_passwd),
    Check::new("libc.user.root", user_root),
    Check::new("libc.user.root-by-name", user_root_by_name),
    Check::new("libc.user.self", user_self),
    Check::new("libc.user.group", group),
    Check::new("libc.user.group-by-name", group_by_name),
];

const AF_INET: c_int = 2;
const AF_INET6: c_int = 10;
const SOCK_STREAM: c_int = 1;
const AI_PASSIVE: c_int = 1;
const AI_NUMERICHOST: c_int = 4;
const AI_NUMERICSERV: c_int = 0x400;
const NI_NUMERICHOST: c_int = 1;
const NI_NUMERICSERV: c_int = 2;
const EAI_SYSTEM: c_int = -11;

const LOOPBACK4: &[u8] = &[127, 0, 0, 1];
const LOOPBACK6: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Whether a line of a hosts file gives `name` an address of this family.
pub fn hosts_has(hosts: &[u8], name: &[u8], family: c_int) -> bool {
    hosts.split(|byte| *byte == b'\n').any(|line| {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or(b"");
        let mut words = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
        let Some(address) = words.next() else { return false };
        (address.contains(&b':') == (family == AF_INET6)) && words.any(|word| word.eq_ignore_ascii_case(name))
    })
}

/// Ends the check unless /etc/hosts has an entry, because everything else is the network's business.
fn hosts_entry(name: &[u8], family: c_int) -> Result<(), Saw> {
    let mut room = [0; 8192];
    let of = if family == AF_INET6 { "IPv6" } else { "IPv4" };
    match sys::read_file(c"/etc/hosts", &mut room) {
        Ok(hosts) if hosts_has(hosts, name, family) => Ok(()),
        Ok(_) => {
            Err(not_asked!("/etc/hosts gives {} no {of} address", core::str::from_utf8(name).unwrap_or("the name")))
        }
        Err(ENOENT) => Err(not_asked!("no /etc/hosts in the cell")),
        Err(errno) => Err(Saw::Errno(errno, "read /etc/hosts")),
    }
}

/// Asks for a stream address of a name and hands over the first one of the family.
fn look_up(
    cell: &Cell,
    name: Option<&CStr>,
    service: Option<&CStr>,
    family: c_int,
    flags: c_int,
    port_and_address: impl FnOnce(u16, &[u8]) -> Result<(), Saw>,
) -> Result<(), Saw> {
    let hints = AddrInfo {
        flags,
        family,
        kind: SOCK_STREAM,
        protocol: 0,
        size: 0,
        address: core::ptr::null(),
        canonical: core::ptr::null(),
        next: core::ptr::null_mut(),
    };
    let mut list = core::ptr::null_mut();
    let pointer = |text: Option<&CStr>| text.map_or(core::ptr::null(), CStr::as_ptr);
    // SAFETY: terminated texts or null; the list is read before it is freed, addresses by their family's layout.
    unsafe {
        match cell.getaddrinfo(pointer(name), pointer(service), &hints, &mut list) {
            0 => {}
            EAI_SYSTEM => return Err(cell.failed("getaddrinfo")),
            error => return Err(value!("EAI {error}")),
        }
        let mut entry = list;
        while !entry.is_null() && (*entry).family != family {
            entry = (*entry).next;
        }
        if entry.is_null() {
            return Err(value!("no address of the family that was asked for"));
        }
        let (offset, size) = if family == AF_INET { (4, 4) } else { (8, 16) };
        let address = core::slice::from_raw_parts((*entry).address.add(offset), size);
        let port = u16::from_be((*entry).address.add(2).cast::<u16>().read_unaligned());
        let result = port_and_address(port, address);
        cell.freeaddrinfo(list);
        result
    }
}

fn expect_address(seen: &[u8], expected: &[u8]) -> Result<(), Saw> {
    if seen == expected {
        return Ok(());
    }
    let mut text = Answer::of(b"address ");
    for byte in seen {
        text.add_hex(u64::from(*byte), 2);
    }
    Err(Saw::value(text.bytes()))
}

fn localhost_v4(cell: &Cell, _: usize) -> Seen {
    hosts_entry(b"localhost", AF_INET)?;
    look_up(cell, Some(c"localhost"), None, AF_INET, 0, |_, address| {
        // 127.0.1.1 and the like are fine, too.
        if address[0] == 127 { Ok(()) } else { expect_address(address, LOOPBACK4) }
    })?;
    Ok(Saw::Ok)
}

fn localhost_v6(cell: &Cell, _: usize) -> Seen {
    hosts_entry(b"localhost", AF_INET6)?;
    look_up(cell, Some(c"localhost"), None, AF_INET6, 0, |_, address| expect_address(address, LOOPBACK6))?;
    Ok(Saw::Ok)
}

/// curl and many others look names up in a thread of their own; that is where a refused clone3 shows first.
fn localhost_thread(cell: &Cell, _: usize) -> Seen {
    hosts_entry(b"localhost", AF_INET)?;
    extern "C" fn look(cell: Any) -> Any {
        // SAFETY: the argument is the cell, which outlives the thread.
        let cell = unsafe { &*cell.cast::<Cell>() };
        localhost_v4(cell, 0).is_ok() as usize as Any
    }
    // SAFETY: the cell outlives the thread.
    let found = unsafe { crate::thread::spawn(cell, look, crate::thread::shared(cell))? };
    expect(crate::thread::join(cell, found)? == 1, b"not found by a thread")?;
    Ok(Saw::Ok)
}

fn hostname(cell: &Cell, _: usize) -> Seen {
    let mut room = [0 as c_char; 256];
    // SAFETY: room for a host name, which is terminated because the last byte is not offered.
    let name = unsafe {
        cell.check(cell.gethostname(room.as_mut_ptr(), room.len() - 1), "gethostname")?;
        CStr::from_ptr(room.as_ptr())
    };
    let mut hosts = [0; 8192];
    match sys::read_file(c"/etc/hosts", &mut hosts) {
        Ok(hosts) if hosts_has(hosts, name.to_bytes(), AF_INET) => {}
        // The host's name is volatile, so the reason does not contain it.
        _ => return Err(not_asked!("/etc/hosts gives the cell's host name no IPv4 address")),
    }
    look_up(cell, Some(name), None, AF_INET, 0, |_, _| Ok(()))?;
    Ok(Saw::Ok)
}

fn numeric_v4(cell: &Cell, _: usize) -> Seen {
    look_up(cell, Some(c"127.0.0.1"), None, AF_INET, AI_NUMERICHOST, |_, address| expect_address(address, LOOPBACK4))?;
    Ok(Saw::Ok)
}

fn numeric_v6(cell: &Cell, _: usize) -> Seen {
    look_up(cell, Some(c"::1"), None, AF_INET6, AI_NUMERICHOST, |_, address| expect_address(address, LOOPBACK6))?;
    Ok(Saw::Ok)
}

/// What a server asks for before it binds.
fn passive(cell: &Cell, _: usize) -> Seen {
    look_up(cell, None, Some(c"8080"), AF_INET, AI_PASSIVE | AI_NUMERICSERV, |port, address| {
        expect(port == 8080, b"another port")?;
        expect_address(address, &[0, 0, 0, 0])
    })?;
    Ok(Saw::Ok)
}

fn present(path: &CStr, why: &str) -> Result<(), Saw> {
    match sys::open(path, O_PATH, 0) {
        Ok(fd) => {
            let _ = sys::close(fd);
            Ok(())
        }
        Err(_) => Err(not_asked!("{why}")),
    }
}

fn service(cell: &Cell, _: usize) -> Seen {
    present(c"/etc/services", "no /etc/services in the image")?;
    look_up(cell, Some(c"127.0.0.1"), Some(c"http"), AF_INET, AI_NUMERICHOST, |port, _| {
        if port == 80 { Ok(()) } else { Err(value!("port {port}")) }
    })?;
    Ok(Saw::Ok)
}

fn protocol(cell: &Cell, _: usize) -> Seen {
    if cell.kind == Kind::Glibc {
        present(c"/etc/protocols", "no /etc/protocols in the image")?;
    }
    // SAFETY: a constant text.
    let entry = unsafe { cell.getprotobyname(c"tcp".as_ptr()) };
    expect(!entry.is_null(), b"tcp is not a protocol")?;
    Ok(Saw::Ok)
}

fn getnameinfo(cell: &Cell, _: usize) -> Seen {
    let mut address = [0u8; 16];
    address[0] = AF_INET as u8;
    address[2..8].copy_from_slice(&[0x1f, 0x90, 127, 0, 0, 1]);
    let (mut host, mut service) = ([0 as c_char; 64], [0 as c_char; 32]);
    // SAFETY: a socket address of 16 bytes and room for two texts.
    let error = unsafe {
        let flags = NI_NUMERICHOST | NI_NUMERICSERV;
        cell.getnameinfo(any(&mut address), 16, host.as_mut_ptr(), 64, service.as_mut_ptr(), 32, flags)
    };
    if error != 0 {
        return Err(value!("EAI {error}"));
    }
    // SAFETY: the function terminated both.
    let (host, service) = unsafe { (CStr::from_ptr(host.as_ptr()), CStr::from_ptr(service.as_ptr())) };
    expect(host == c"127.0.0.1" && service == c"8080", b"another text")?;
    Ok(Saw::Ok)
}

fn gethostbyname(cell: &Cell, _: usize) -> Seen {
    hosts_entry(b"localhost", AF_INET)?;
    // SAFETY: a constant text; the entry is read before anything else asks.
    unsafe {
        let entry = cell.gethostbyname(c"localhost".as_ptr());
        expect(!entry.is_null(), b"localhost has no address")?;
        let first = *(*entry).addresses;
        expect((*entry).family == AF_INET && !first.is_null(), b"localhost has no IPv4 address")?;
        expect(*first == 127, b"localhost is not a loopback address")?;
    }
    Ok(Saw::Ok)
}

fn nsswitch_hosts(cell: &Cell, _: usize) -> Seen {
    nsswitch(cell, b"hosts:")
}

fn nsswitch_passwd(cell: &Cell, _: usize) -> Seen {
    nsswitch(cell, b"passwd:")
}

/// The sources the image's configuration names, in order.
fn nsswitch(cell: &Cell, database: &[u8]) -> Seen {
    if cell.kind == Kind::Musl {
        return Err(not_asked!("musl has no name service switch"));
    }
    let mut room = [0; 4096];
    let text = match sys::read_file(c"/etc/nsswitch.conf", &mut room) {
        Ok(text) => text,
        Err(ENOENT) => return Err(not_asked!("no /etc/nsswitch.conf in the image: libc's own order applies")),
        Err(errno) => return Err(Saw::Errno(errno, "read /etc/nsswitch.conf")),
    };
    let mut answer = Answer::new();
    for line in text.split(|byte| *byte == b'\n') {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or(b"").trim_ascii();
        let Some(sources) = line.strip_prefix(database) else { continue };
        for source in sources.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
            if !answer.is_empty() {
                answer.add(b" ");
            }
            answer.add(source);
        }
        break;
    }
    Ok(Saw::value(answer.bytes()))
}

/// `struct passwd` and `struct group` begin with the name; the ids follow the password.
type Entry = Opaque<16>;

/// Looks an entry up and hands over its name and the id that follows the password.
fn entry(
    cell: &Cell,
    file: &CStr,
    look: impl FnOnce(Any, *mut c_char, usize, *mut Any) -> c_int,
) -> Result<Option<(Answer, u32)>, Saw> {
    if cell.kind != Kind::Other {
        present(
            file,
            match file.to_bytes() {
                b"/etc/group" => "no /etc/group in the image",
                _ => "no /etc/passwd in the image",
            },
        )?;
    }
    let mut entry: Entry = [0; 16];
    let mut room = [0 as c_char; 4096];
    let mut found = core::ptr::null_mut();
    let errno = look(any(&mut entry), room.as_mut_ptr(), room.len(), &mut found);
    // The functions may report "not there" as one of these, getpwnam(3).
    if errno != 0 && !matches!(errno, ENOENT | ESRCH | EBADF | EPERM) {
        return Err(Saw::Errno(errno, ""));
    }
    if found.is_null() {
        return Ok(None);
    }
    // SAFETY: the function filled the entry in: two pointers, then an id; the name is terminated.
    unsafe {
        let name = CStr::from_ptr(entry[0] as *const c_char);
        Ok(Some((Answer::of(name.to_bytes()), entry[2] as u32)))
    }
}

fn expect_root(entry: Option<(Answer, u32)>) -> Seen {
    match entry {
        Some((name, 0)) if name.bytes() == b"root" => Ok(Saw::Ok),
        Some((name, id)) => Err(value!("{} has id {id}", core::str::from_utf8(name.bytes()).unwrap_or("?"))),
        None => Err(value!("unknown")),
    }
}

fn user_root(cell: &Cell, _: usize) -> Seen {
    // SAFETY: the room the caller offers.
    expect_root(entry(cell, c"/etc/passwd", |user, room, size, found| unsafe {
        cell.getpwuid_r(0, user, room, size, found)
    })?)
}

fn user_root_by_name(cell: &Cell, _: usize) -> Seen {
    // SAFETY: the room the caller offers.
    expect_root(entry(cell, c"/etc/passwd", |user, room, size, found| unsafe {
        cell.getpwnam_r(c"root".as_ptr(), user, room, size, found)
    })?)
}

fn user_self(cell: &Cell, _: usize) -> Seen {
    // SAFETY: the room the caller offers.
    let own = entry(cell, c"/etc/passwd", |user, room, size, found| unsafe {
        cell.getpwuid_r(cell.getuid(), user, room, size, found)
    })?;
    expect(own.is_some(), b"unknown")?;
    Ok(Saw::Ok)
}

fn group(cell: &Cell, _: usize) -> Seen {
    // SAFETY: the room the caller offers.
    expect_root(entry(cell, c"/etc/group", |group, room, size, found| unsafe {
        cell.getgrgid_r(0, group, room, size, found)
    })?)
}

fn group_by_name(cell: &Cell, _: usize) -> Seen {
    // SAFETY: the room the caller offers.
    expect_root(entry(cell, c"/etc/group", |group, room, size, found| unsafe {
        cell.getgrnam_r(c"root".as_ptr(), group, room, size, found)
    })?)
}
