//! Families and protocols: which sockets there are, and one real use of those that can be used here.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good. A kernel may load its module for a family
//! that is asked for; nothing else stays.

use super::*;
use crate::rt::sys::path;

checks![
    Batch "net.family.unix" => || exists(UNIX, STREAM, 0),
    Batch "net.family.inet" => || exists(INET, STREAM, 0),
    Batch "net.family.inet6" => || exists(INET6, STREAM, 0),
    Batch "net.family.netlink" => || exists(NETLINK, RAW, 0),
    Aside "net.family.packet" => packet,
    Batch "net.family.vsock" => || exists(40, STREAM, 0),
    Batch "net.family.alg" => || exists(38, 5, 0),
    Batch "net.family.bluetooth" => || exists(31, RAW, 1),
    Batch "net.family.can" => || exists(29, RAW, 1),
    Batch "net.family.xdp" => || exists(44, RAW, 0),
    Batch "net.protocol.mptcp" => mptcp,
    Batch "net.protocol.sctp" => || exists(INET, STREAM, 132),
    Batch "net.protocol.udplite" => || exists(INET, DGRAM, 136),
    Batch "net.netlink.route" => netlink_route,
    Batch "net.netlink.audit" => || exists(NETLINK, RAW, 9),
    Batch "net.netlink.uevent" => || exists(NETLINK, RAW, 15),
    Batch "net.netlink.generic" => || exists(NETLINK, RAW, 16),
    Batch "net.netlink.netfilter" => || exists(NETLINK, RAW, 12),
    Batch "net.alg.hash" => alg_hash,
    Batch "net.unix.pair" => || pair(STREAM),
    Batch "net.unix.packets" => || pair(5),
    Batch "net.unix.abstract" => unix_abstract,
    Batch "net.unix.descriptors" => unix_descriptors,
    Batch "net.unix.credentials" => unix_credentials,
];

/// Closing one waits until no processor handles a packet for it.
fn packet() -> Does {
    let _socket = Fd(must!(nr::SOCKET, 17, RAW | O_CLOEXEC, 0) as i32);
    Err(well())
}

fn exists(family: i32, kind: i32, protocol: i32) -> Does {
    Fd(must!(nr::SOCKET, family, kind | O_CLOEXEC, protocol) as i32);
    Ok(())
}

/// A connection by MPTCP over the loopback.
fn mptcp() -> Does {
    exists(INET, STREAM, 262)?;
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
    exists(38, 5, 0)?;
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
    // An address of only the family: the kernel chooses a name.
    let mut address = [0u8; 110];
    (address[0], address[1]) = (1, 0);
    must!("bind"; nr::BIND, server.0, &address, 2);
    let mut len = 110u32;
    must!("getsockname"; nr::GETSOCKNAME, server.0, &mut address, &mut len);
    holds("no abstract name", len > 3 && address[2] == 0)?;
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
