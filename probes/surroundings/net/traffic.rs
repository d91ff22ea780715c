//! Bytes over the loopback, and the options that servers set.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good.

use super::*;

checks![
    Batch "net.loopback.tcp4" => || tcp(Address::v4(0)),
    Batch "net.loopback.tcp6" => || tcp(Address::v6(0)),
    Batch "net.loopback.udp4" => || udp(Address::v4(0)),
    Batch "net.loopback.udp6" => || udp(Address::v6(0)),
    Batch "net.loopback.dual" => dual,
    Batch "net.tcp.refused" => tcp_refused,
    Batch "net.tcp.fast_open" => fast_open,
    Batch "net.tcp.congestion" => congestion,
    Batch "net.tcp.keepalive" => || option(6, 4, 60),
    Batch "net.tcp.user_timeout" => || option(6, 18, 5000),
    Batch "net.tcp.kernel_tls" => kernel_tls,
    Batch "net.socket.reuse_port" => reuse_port,
    Batch "net.socket.bind_to_device" => bind_to_device,
    Batch "net.socket.mark" => || option(1, 36, 1),
    Batch "net.socket.transparent" => || option(0, 19, 1),
    Batch "net.socket.timestamp" => timestamp,
    Batch "net.socket.zero_copy" => || option(1, 60, 1),
    Batch "net.udp.segment" => udp_segment,
    Batch "net.udp.batch" => udp_batch,
    Batch "net.udp.multicast" => multicast,
];

fn tcp(at: Address) -> Does {
    let (server, at) = listener(at, 0)?;
    let client = connect(&at, 0)?;
    let there = accept(&server)?;
    passes(&client, &there)?;
    passes(&there, &client)
}

/// Two sockets that know each other.
fn datagrams(mut at: Address) -> Result<(Fd, Fd), No> {
    let family = i32::from(at.0[0]);
    let (server, client) = (socket(family, DGRAM, 0)?, socket(family, DGRAM, 0)?);
    at.bind(&server)?;
    must!("connect"; nr::CONNECT, client.0, &at.0, at.len());
    Ok((server, client))
}

fn udp(at: Address) -> Does {
    let (server, client) = datagrams(at)?;
    passes(&client, &server)
}

/// A listener on all of IPv6 takes a connection by IPv4, as Java and Node listen.
fn dual() -> Does {
    let mut all = Address::v6(0);
    all.0[23] = 0;
    let (server, all) = listener(all, 0)?;
    let client = connect(&Address::v4(u16::from_be_bytes([all.0[2], all.0[3]])), 0)?;
    passes(&client, &accept(&server)?)
}

/// Nobody listens: the answer comes at once.
fn tcp_refused() -> Does {
    let (server, at) = listener(Address::v4(0), 0)?;
    drop(server);
    let socket = socket(INET, STREAM, 0)?;
    refused("connect", ask!(nr::CONNECT, socket.0, &at.0, at.len()), ECONNREFUSED)
}

/// MSG_FASTOPEN: connect and send in one, whether or not the bytes travel in the first packet.
fn fast_open() -> Does {
    let (server, at) = listener(Address::v4(0), 0)?;
    set(&server, 6, 23, 4).at("TCP_FASTOPEN")?;
    let client = socket(INET, STREAM, 0)?;
    same("bytes sent", must!(nr::SENDTO, client.0, b"abicus", 6, 0x2000_0000, &at.0, at.len()), 6)?;
    let mut room = [0u8; 8];
    same("bytes", must!("read"; nr::READ, accept(&server)?.0, &mut room, 8), 6)
}

/// The name of the algorithm, as the namespace has it.
fn congestion() -> Does {
    let socket = socket(INET, STREAM, 0)?;
    let (mut name, mut room) = ([0u8; 16], 16u32);
    must!(nr::GETSOCKOPT, socket.0, 6, 13, &mut name, &mut room);
    let end = name.iter().position(|b| *b == 0).unwrap_or(16);
    Err(word(core::str::from_utf8(&name[..end]).unwrap_or("?")))
}

/// An option of a TCP socket, set and read back.
fn option(level: i32, option: i32, to: u32) -> Does {
    let socket = socket(INET, STREAM, 0)?;
    set(&socket, level, option, to)?;
    same("read back", get(&socket, level, option).at("getsockopt")? as usize, to as usize)
}

/// TCP_ULP "tls" on a connection.
fn kernel_tls() -> Does {
    let (server, at) = listener(Address::v4(0), 0)?;
    let client = connect(&at, 0)?;
    let _there = accept(&server)?;
    // Only for who may administer the network does the kernel load what it lacks.
    let has = !capable(CAP_NET_ADMIN) || listed(c"/proc/sys/net/ipv4/tcp_available_ulp", b"tls");
    unless_loads(has || module(c"/sys/module/tls"), "asking would load the module tls")?;
    must!(nr::SETSOCKOPT, client.0, 6, 31, b"tls", 3);
    Ok(())
}

/// SO_REUSEPORT: two listeners on one port.
fn reuse_port() -> Does {
    let (one, other, mut at) = (socket(INET, STREAM, 0)?, socket(INET, STREAM, 0)?, Address::v4(0));
    set(&one, 1, 15, 1)?;
    set(&other, 1, 15, 1)?;
    at.bind(&one)?;
    at.bind(&other)?;
    must!("listen"; nr::LISTEN, one.0, 1);
    must!("listen again"; nr::LISTEN, other.0, 1);
    connect(&at, 0).map(|_| ())
}

fn bind_to_device() -> Does {
    let socket = socket(INET, DGRAM, 0)?;
    must!(nr::SETSOCKOPT, socket.0, 1, 25, b"lo", 2);
    Ok(())
}

/// SO_TIMESTAMPNS: the time of arrival comes with a datagram.
fn timestamp() -> Does {
    let (server, client) = datagrams(Address::v4(0))?;
    set(&server, 1, 35, 1)?;
    must!("send"; nr::SENDTO, client.0, b"x", 1, 0, 0, 0);
    let (mut byte, mut control) = ([0u8], [0usize; 8]);
    let vector = [byte.as_mut_ptr() as usize, 1];
    let message = [0, 0, vector.as_ptr() as usize, 1, control.as_mut_ptr() as usize, 64, 0usize];
    must!("recvmsg"; nr::RECVMSG, server.0, &message, 0);
    same("type of the control message", control[1] >> 32, 35)
}

/// UDP_SEGMENT: one send, three datagrams.
fn udp_segment() -> Does {
    let (server, client) = datagrams(Address::v4(0))?;
    set(&client, 17, 103, 100)?;
    same("bytes sent", must!("send"; nr::SENDTO, client.0, &[7u8; 250], 250, 0, 0, 0), 250)?;
    let mut room = [0u8; 256];
    for wanted in [100, 100, 50] {
        same("bytes of a datagram", must!("receive"; nr::RECVFROM, server.0, &mut room, 256, 0, 0, 0), wanted)?;
    }
    Ok(())
}

/// sendmmsg(2) and recvmmsg(2) of two.
fn udp_batch() -> Does {
    let (server, client) = datagrams(Address::v4(0))?;
    let mut byte = [7u8];
    let vector = [byte.as_mut_ptr() as usize, 1];
    let one = [0, 0, vector.as_ptr() as usize, 1, 0, 0, 0, 0usize];
    let messages = [one, one];
    same("sent", must!(nr::SENDMMSG, client.0, &messages, 2, 0), 2)?;
    same("received", must!("recvmmsg"; nr::RECVMMSG, server.0, &messages, 2, 0, 0), 2)
}

/// A group joined on the loopback hears what is sent to it.
fn multicast() -> Does {
    let (server, client, mut at) = (socket(INET, DGRAM, 0)?, socket(INET, DGRAM, 0)?, Address::v4(0));
    at.0[4..8].copy_from_slice(&[239, 255, 42, 99]);
    at.bind(&server)?;
    // struct ip_mreqn: group, address, interface 1
    let group = [239u8, 255, 42, 99, 0, 0, 0, 0, 1, 0, 0, 0];
    must!(nr::SETSOCKOPT, server.0, 0, 35, &group, 12);
    must!("IP_MULTICAST_IF"; nr::SETSOCKOPT, client.0, 0, 32, &group, 12);
    must!("connect"; nr::CONNECT, client.0, &at.0, 16);
    passes(&client, &server)
}
