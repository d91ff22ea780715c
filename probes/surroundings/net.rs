//! The network.
//!
//! Goes in: nothing. Comes out: facts and answers. Must not know: which answers are good. `check.rs` says how to add one. All
//! traffic goes over the loopback or between two sockets of a pair.

#![allow(unreachable_code)] // what follows the making of a `No` is never reached

pub mod family;
pub mod host;
pub mod traffic;

use super::asking::*;
use super::check::Facts;
use super::rt::consts::*;
use super::rt::nr;

pub static FACTS: &[fn(&mut Facts)] = &[];

pub const STREAM: i32 = 1;
pub const DGRAM: i32 = 2;
pub const RAW: i32 = 3;
pub const UNIX: i32 = 1;
pub const INET: i32 = 2;
pub const INET6: i32 = 10;
pub const NETLINK: i32 = 16;

/// A protocol that the kernel has in its list, whatever namespace asks.
pub fn protocol(name: &[u8]) -> bool {
    listed(c"/proc/net/protocols", name)
}

/// Ends the check where asking for a socket of IPv6 would load it.
#[inline(never)]
fn v6_is_there() -> Does {
    unless_loads(module(c"/sys/module/ipv6") || protocol(b"TCPv6"), "asking would load the module ipv6")
}

/// socket(2), closed on exec. Reads and writes wait at most a tenth of a second.
#[inline(never)]
pub fn socket(family: i32, kind: i32, protocol: i32) -> Result<Fd, No> {
    if family == INET6 {
        v6_is_there()?;
    }
    let socket = Fd(must!("socket"; nr::SOCKET, family, kind | O_CLOEXEC, protocol) as i32);
    let time = [0usize, 100_000];
    for option in [20, 21] {
        let _ = ask!(nr::SETSOCKOPT, socket.0, 1, option, &time, 16);
    }
    Ok(socket)
}

/// An address of the loopback, port 0 for any.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct Address(pub [u8; 28]);

impl Address {
    pub fn v4(port: u16) -> Address {
        let mut a = [0; 28];
        a[0] = INET as u8;
        a[2..4].copy_from_slice(&port.to_be_bytes());
        (a[4], a[7]) = (127, 1);
        Address(a)
    }
    pub fn v6(port: u16) -> Address {
        let mut a = [0; 28];
        a[0] = INET6 as u8;
        a[2..4].copy_from_slice(&port.to_be_bytes());
        a[23] = 1;
        Address(a)
    }
    pub fn len(&self) -> usize {
        if i32::from(self.0[0]) == INET { 16 } else { 28 }
    }
    /// Binds, and becomes the address that was given.
    #[inline(never)]
    pub fn bind(&mut self, socket: &Fd) -> Does {
        must!("bind"; nr::BIND, socket.0, &self.0, self.len());
        let mut room = 28u32;
        must!("getsockname"; nr::GETSOCKNAME, socket.0, &mut self.0, &mut room);
        Ok(())
    }
}

/// Sets an option to a number.
#[inline(never)]
pub fn set(socket: &Fd, level: i32, option: i32, to: u32) -> Result<usize, i32> {
    ask!(nr::SETSOCKOPT, socket.0, level, option, &to, 4)
}

/// An option that is a number.
#[inline(never)]
pub fn get(socket: &Fd, level: i32, option: i32) -> Result<u32, i32> {
    let (mut value, mut room) = (0u32, 4u32);
    ask!(nr::GETSOCKOPT, socket.0, level, option, &mut value, &mut room)?;
    Ok(value)
}

/// A listener on the loopback, and the address it has.
#[inline(never)]
pub fn listener(mut at: Address, protocol: i32) -> Result<(Fd, Address), No> {
    let socket = socket(i32::from(at.0[0]), STREAM, protocol)?;
    at.bind(&socket)?;
    must!("listen"; nr::LISTEN, socket.0, 4);
    Ok((socket, at))
}

#[inline(never)]
pub fn connect(at: &Address, protocol: i32) -> Result<Fd, No> {
    let socket = socket(i32::from(at.0[0]), STREAM, protocol)?;
    must!("connect"; nr::CONNECT, socket.0, &at.0, at.len());
    Ok(socket)
}

#[inline(never)]
pub fn accept(at: &Fd) -> Result<Fd, No> {
    Ok(Fd(must!("accept4"; nr::ACCEPT4, at.0, 0, 0, O_CLOEXEC) as i32))
}

/// Sends six bytes through one and takes them from the other.
#[inline(never)]
pub fn passes(from: &Fd, to: &Fd) -> Does {
    let mut room = [0u8; 8];
    same("bytes sent", must!("send"; nr::SENDTO, from.0, b"abicus", 6, 0, 0, 0), 6)?;
    let n = must!("receive"; nr::RECVFROM, to.0, &mut room, 8, 0, 0, 0);
    holds("other bytes came", &room[..n.min(8)] == b"abicus")
}
