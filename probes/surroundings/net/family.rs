//! Families and protocols: which sockets there are, and one real use of those that can be used here.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good. What the kernel would have to load first
//! is not asked for, beyond what a filter says of the family.

use super::*;
use crate::rt::sys::{self, path};
use crate::rt::text::Text;

checks![
    Batch "net.family.unix" => || exists(UNIX, STREAM, 0),
    Batch "net.family.inet" => || exists(INET, STREAM, 0),
    Batch "net.family.inet6" => || socket(INET6, STREAM, 0).map(|_| ()),
    Batch "net.family.netlink" => || exists(NETLINK, RAW, 0),
    Aside "net.family.packet" => packet,
    Batch "net.family.vsock" => || family(40, STREAM, 0, b"AF_VSOCK", "asking would load the module vsock"),
    Batch "net.family.alg" => alg,
    Batch "net.family.bluetooth" => || family(31, RAW, 1, b"HCI", "asking would load the module bluetooth"),
    Batch "net.family.can" => || family(29, RAW, 1, b"CAN_RAW", "asking would load the modules can and can_raw"),
    Batch "net.family.xdp" => || family(44, RAW, 0, b"XDP", "asking would load a module for net-pf-44"),
    Batch "net.protocol.mptcp" => mptcp,
    Batch "net.protocol.sctp" => || has(b"SCTP", 132, STREAM, "asking would load the module sctp"),
    Batch "net.protocol.udplite" => || has(b"UDP-Lite", 136, DGRAM, "asking would load a module for UDP-Lite"),
    Batch "net.netlink.route" => netlink_route,
    Batch "net.netlink.audit" => || netlink(9, "asking would load a module for net-pf-16-proto-9"),
    Batch "net.netlink.uevent" => || exists(NETLINK, RAW, 15),
    Batch "net.netlink.generic" => || exists(NETLINK, RAW, 16),
    Batch "net.netlink.netfilter" => || netlink(12, "asking would load the module nfnetlink"),
    Batch "net.alg.hash" => alg_hash,
    Batch "net.unix.pair" => || pair(STREAM),
    Batch "net.unix.packets" => || pair(5),
    Batch "net.unix.abstract" => unix_abstract,
    Batch "net.unix.descriptors" => unix_descriptors,
    Batch "net.unix.credentials" => unix_credentials,
];

/// Closing one waits until no processor handles a packet for it.
fn packet() -> Does {
    unloaded(17, b"PACKET", "asking would load the module af_packet")?;
    let _socket = Fd(must!(nr::SOCKET, 17, RAW | O_CLOEXEC, 0) as i32);
    Err(well())
}

/// Ends the check where the kernel would have to load the family. A filter that refuses it is seen all the same: of a kind of
/// socket that no family has the kernel says EINVAL before it looks for the family, and the filter speaks before the kernel.
#[inline(never)]
fn unloaded(family: i32, name: &[u8], why: &'static str) -> Does {
    if !protocol(name)
        && let Err(errno) = ask!(nr::SOCKET, family, 15 | O_CLOEXEC, 0)
        && errno != EINVAL
    {
        return Err(errno.into());
    }
    unless_loads(protocol(name), why)
}

#[inline(never)]
fn family(family: i32, kind: i32, protocol: i32, name: &[u8], why: &'static str) -> Does {
    unloaded(family, name, why)?;
    exists(family, kind, protocol)
}

fn alg() -> Does {
    family(38, 5, 0, b"ALG", "asking would load the module af_alg")
}

/// A protocol of IPv4.
#[inline(never)]
fn has(name: &[u8], number: i32, kind: i32, why: &'static str) -> Does {
    unless_loads(protocol(name), why)?;
    exists(INET, kind, number)
}

/// A protocol of netlink.
#[inline(never)]
fn netlink(number: i32, why: &'static str) -> Does {
    let text = Text::<16>::format(format_args!("{number}"));
    unless_loads(crate::module::netlink(text.bytes()).is_ok(), why)?;
    exists(NETLINK, RAW, number)
}

fn exists(family: i32, kind: i32, protocol: i32) -> Does {
    Fd(must!(nr::SOCKET, family, kind | O_CLOEXEC, protocol) as i32);
    Ok(())
}

/// A connection by MPTCP over the loopback.
fn mptcp() -> Does {
    has(b"MPTCP", 262, STREAM, "asking would load a module for MPTCP")?;
    let (server, at) = listener(Address::v4(0), 262)?;
    let client = connect(&at, 262)?;
    passes(&client, &accept(&server)?)
}

/// RTM_GETLINK of the loopback: there, and up. As glibc's getaddrinfo and ip(8) ask.
fn netlink_route() -> Does {
    let socket = socket(NETLINK, RAW, 0)?;
    // struct nlmsghdr and struct ifinfomsg: the first interface is the loopback in every namespace.
    let request = [32u32, 18 | 1 << 16, 1, 0, 0, 1, 0, 0];
    must!("send"; nr::SENDTO, socket.0, &request, 32, 0, 0, 0);
    let mut answer = [0u32; 1024];
    let n = must!("receive"; nr::RECVFROM, socket.0, &mut answer, size_of_val(&answer), 0, 0, 0);
    holds("no answer", n >= 32)?;
    // NLMSG_ERROR
    if answer[1] & 0xffff == 2 {
        return Err((answer[4] as i32).wrapping_neg().into());
    }
    same("RTM_NEWLINK", answer[1] as usize & 0xffff, 16)?;
    // IFF_LOOPBACK and IFF_UP
    same("loopback", answer[6] as usize >> 3 & 1, 1)?;
    holds("the loopback is down", answer[6] & 1 == 1)
}

/// The SHA-256 of nothing, by the kernel.
fn alg_hash() -> Does {
    alg()?;
    let has = module(c"/sys/module/algif_hash") && listed(c"/proc/crypto", b"sha256");
    unless_loads(has, "asking would load the modules algif_hash and sha256")?;
    let cipher = socket(38, 5, 0)?;
    let mut address = [0u8; 88];
    address[0] = 38;
    address[2..6].copy_from_slice(b"hash");
    address[24..30].copy_from_slice(b"sha256");
    must!("bind"; nr::BIND, cipher.0, &address, 88);
    let operation = accept(&cipher)?;
    must!("send"; nr::SENDTO, operation.0, path(c""), 0, 0, 0, 0);
    let mut digest = [0u8; 32];
    same("bytes", must!("read"; nr::READ, operation.0, &mut digest, 32), 32)?;
    holds("another digest", digest.starts_with(&[0xe3, 0xb0, 0xc4, 0x42]))
}

fn two(kind: i32) -> Result<(Fd, Fd), No> {
    let mut ends = [-1i32; 2];
    must!(nr::SOCKETPAIR, UNIX, kind | O_CLOEXEC, 0, &mut ends);
    Ok((Fd(ends[0]), Fd(ends[1])))
}

/// socketpair(2), both ways.
fn pair(kind: i32) -> Does {
    let (one, other) = two(kind)?;
    passes(&one, &other)?;
    passes(&other, &one)
}

/// A name that is in no file system; it belongs to the network namespace.
fn unix_abstract() -> Does {
    let (server, client) = (socket(UNIX, STREAM, 0)?, socket(UNIX, STREAM, 0)?);
    let mut address = [0u8; 110];
    // The namespaces of processes and of the network need not be the same.
    let name = Text::<64>::format(format_args!("abicus-{}-{}", sys::getpid(), crate::fs::namespace()));
    address[0] = 1;
    address[3..3 + name.bytes().len()].copy_from_slice(name.bytes());
    let len = 3 + name.bytes().len();
    must!("bind"; nr::BIND, server.0, &address, len);
    must!("listen"; nr::LISTEN, server.0, 1);
    must!(nr::CONNECT, client.0, &address, len);
    passes(&client, &accept(&server)?)
}

/// struct msghdr of one byte with a control message of our own.
fn message(vector: &[usize; 2], control: &mut [usize; 4]) -> [usize; 7] {
    [0, 0, vector.as_ptr() as usize, 1, control.as_mut_ptr() as usize, 24, 0]
}

/// SCM_RIGHTS
fn unix_descriptors() -> Does {
    let ((one, other), (from, to)) = (two(DGRAM)?, pipe()?);
    let mut byte = [7u8];
    let vector = [byte.as_mut_ptr() as usize, 1];
    // struct cmsghdr: length, level SOL_SOCKET, type SCM_RIGHTS
    let mut control = [20, 1 | 1 << 32, to.0 as usize, 0];
    must!(nr::SENDMSG, one.0, &message(&vector, &mut control), 0);
    drop(to);
    control = [0; 4];
    // MSG_CMSG_CLOEXEC
    must!("recvmsg"; nr::RECVMSG, other.0, &message(&vector, &mut control), 0x4000_0000);
    same("length of the control message", control[0], 20)?;
    let taken = Fd(control[2] as u32 as i32);
    must!("write to the descriptor that came"; nr::WRITE, taken.0, b"abicus", 6);
    let mut room = [0u8; 8];
    same("bytes", must!("read"; nr::READ, from.0, &mut room, 8), 6)
}

/// SO_PEERCRED
fn unix_credentials() -> Does {
    let (one, _other) = two(STREAM)?;
    let (mut who, mut room) = ([0u32; 3], 12u32);
    must!(nr::GETSOCKOPT, one.0, 1, 17, &mut who, &mut room);
    same("pid", who[0] as usize, must!(nr::GETPID))?;
    same("uid", who[1] as usize, must!(nr::GETEUID))
}
