//! What the cell's network namespace permits: ports, raw and ping sockets, netfilter.
//!
//! Goes in: nothing. Comes out: answers. Must not know: which answers are good.

use super::*;

checks![
    Batch "net.port.low" => low_port,
    Own "net.port.low.uncapable" => low_port_uncapable,
    Batch "net.ping.socket" => || echo(DGRAM),
    Own "net.ping.socket.uncapable" => ping_uncapable,
    Batch "net.raw.icmp" => || echo(RAW),
    Own "net.iptables.legacy" => iptables_legacy,
    Own "net.nftables.tables" => nftables,
    Own "net.address.add" => address_add,
];

/// The first free one below 1024, from above; the low ones may be in use natively.
fn low_port() -> Does {
    let socket = socket(INET, STREAM, 0)?;
    for port in (1000..1024).rev() {
        let at = Address::v4(port);
        match ask!(nr::BIND, socket.0, &at.0, 16) {
            Err(EADDRINUSE) => {}
            other => {
                other?;
                return Ok(());
            }
        }
    }
    Err(not_asked("all of them are in use"))
}

/// Nobody, and nothing that would permit it.
fn nobody() -> Does {
    let _ = ask!(nr::SETRESGID, 65534, 65534, 65534);
    let _ = ask!(nr::SETRESUID, 65534, 65534, 65534);
    drop_capabilities().at("capset")?;
    Ok(())
}

/// As a server that runs as another user: net.ipv4.ip_unprivileged_port_start decides.
fn low_port_uncapable() -> Does {
    nobody()?;
    low_port()
}

/// net.ipv4.ping_group_range decides.
fn ping_uncapable() -> Does {
    nobody()?;
    echo(DGRAM)
}

/// An echo request to the loopback and its reply.
fn echo(kind: i32) -> Does {
    let socket = Fd(must!(nr::SOCKET, INET, kind | O_CLOEXEC | O_NONBLOCK, 1) as i32);
    let at = Address::v4(0);
    must!("connect"; nr::CONNECT, socket.0, &at.0, 16);
    // Type 8; a raw socket wants the checksum made, and both get the identifier back.
    let mut request = [8u8, 0, 0, 0, 0x5a, 0x5a, 0, 1];
    let sum = !(0x0800u16 + 0x5a5a + 1);
    request[2..4].copy_from_slice(&sum.to_be_bytes());
    same("bytes sent", must!("send"; nr::SENDTO, socket.0, &request, 8, 0, 0, 0), 8)?;
    let mut room = [0u8; 64];
    for _ in 0..4 {
        let wait = ready(&socket, 1, 50).at("ppoll")?;
        same("an answer", wait, 1)?;
        let n = must!("receive"; nr::RECVFROM, socket.0, &mut room, 64, 0, 0, 0);
        // A raw socket sees the header of 20 bytes, and the request itself.
        let from = if kind == RAW { 20 } else { 0 };
        if n == from + 8 && room[from] == 0 {
            return Ok(());
        }
    }
    Err(word("no reply"))
}

/// A network namespace of our own, so that nothing is loaded into the cell's.
fn apart() -> Does {
    if ask!(nr::UNSHARE, CLONE_NEWNET).is_err() {
        return Err(not_asked("no network namespace of our own can be made"));
    }
    Ok(())
}

/// IPT_SO_GET_INFO of the table nat, as iptables-legacy starts.
fn iptables_legacy() -> Does {
    let has = listed(c"/proc/net/ip_tables_names", b"nat") || module(c"/sys/module/iptable_nat");
    unless_loads(has, "asking would load the module iptable_nat")?;
    apart()?;
    let socket = Fd(must!("socket"; nr::SOCKET, INET, RAW | O_CLOEXEC, 255) as i32);
    let (mut info, mut room) = ([0u8; 84], 84u32);
    info[..3].copy_from_slice(b"nat");
    must!(nr::GETSOCKOPT, socket.0, 0, 64, &mut info, &mut room);
    Ok(())
}

/// NFT_MSG_GETTABLE of all: an empty list is an answer.
fn nftables() -> Does {
    unless_loads(module(c"/sys/module/nf_tables"), "asking would load the module nf_tables")?;
    apart()?;
    let socket = socket(NETLINK, RAW, 12)?;
    // struct nlmsghdr: length, NFNL_SUBSYS_NFTABLES and NFT_MSG_GETTABLE, NLM_F_REQUEST | NLM_F_DUMP
    let request = [20u32, 0x0a01 | 0x301 << 16, 1, 0, 0];
    must!("send"; nr::SENDTO, socket.0, &request, 20, 0, 0, 0);
    let mut answer = [0u32; 64];
    must!("receive"; nr::RECVFROM, socket.0, &mut answer, 256, 0, 0, 0);
    match answer[1] & 0xffff {
        // NLMSG_ERROR
        2 if answer[4] != 0 => Err((answer[4] as i32).wrapping_neg().into()),
        _ => Ok(()),
    }
}

/// CAP_NET_ADMIN in a namespace of our own: the loopback is brought up, as VPN clients and engines do.
fn address_add() -> Does {
    apart()?;
    let socket = socket(INET, DGRAM, 0)?;
    // struct ifreq: name, flags IFF_UP
    let mut request = [0u8; 40];
    (request[0], request[1], request[16]) = (b'l', b'o', 1);
    must!(nr::IOCTL, socket.0, 0x8914, &request);
    let (server, at) = listener(Address::v4(0), 0)?;
    let client = connect(&at, 0)?;
    passes(&client, &accept(&server)?)
}
