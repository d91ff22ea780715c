//! What modules of the kernel enable, asked without loading one: by what the kernel lists as registered.
//!
//! Goes in: nothing. Comes out: `Ok` for what is registered now; the words `not registered` mean that nobody has needed it yet,
//! or that it does not exist: asking more would load it. Must not know: which answers are good.

use core::ffi::CStr;

use super::look::*;
use super::said::*;
use crate::asking::{Fd, ask};
use crate::rt::consts::*;
use crate::rt::nr;

asked![
    Batch "module.bridge" => || named(b"bridge"),
    Batch "module.nf_tables" => nf_tables,
];

/// Rows of `table.rs`.
pub const ROWS: &str = r"
module.9p type 9p
module.af_alg protocol ALG
module.af_key exists /proc/net/pfkey
module.autofs type autofs
module.binfmt_misc type binfmt_misc
module.bonding exists /proc/net/bonding
module.bpf type bpf
module.br_netfilter exists /proc/sys/net/bridge
module.btrfs type btrfs
module.can exists /proc/net/can
module.ceph type ceph
module.cifs type cifs
module.conntrack exists /proc/sys/net/netfilter/nf_conntrack_max
module.device_mapper misc device-mapper
module.erofs type erofs
module.ext4 type ext4
module.fuse type fuse
module.infiniband exists /sys/class/infiniband
module.ip_tables exists /proc/net/ip_tables_names
module.ip6_tables exists /proc/net/ip6_tables_names
module.ip_vs exists /proc/net/ip_vs
module.ipv6 exists /proc/sys/net/ipv6
module.isofs type iso9660
module.kvm misc kvm
module.loop misc loop-control
module.macsec family macsec
module.mptcp protocol MPTCP
module.nbd family nbd
module.netlink.audit netlink 9
module.netlink.inet_diag netlink 4
module.netlink.xfrm netlink 6
module.nfnetlink netlink 12
module.nfs type nfs
module.nfsd type nfsd
module.nl80211 family nl80211
module.nvidia exists /proc/driver/nvidia/version
module.openvswitch family ovs_datapath
module.overlay type overlay
module.packet protocol PACKET
module.pppoe protocol PPPOE
module.rds protocol RDS
module.sctp protocol SCTP
module.squashfs type squashfs
module.tipc protocol TIPC
module.tls exists /proc/net/tls_stat
module.tun misc tun
module.vfat type vfat
module.vhost_net misc vhost-net
module.virtiofs type virtiofs
module.vlan exists /proc/net/vlan
module.vsock protocol AF_VSOCK
module.wireguard family wireguard
module.xdp protocol XDP
module.xfs type xfs
module.zfs type zfs
module.zram exists /sys/class/zram-control
";

#[inline(never)]
fn registered(is: bool) -> Does {
    holds("not registered", is)
}

/// The last word of a line, after a tab or a blank.
fn last(line: &[u8]) -> &[u8] {
    line.rsplit(|b| *b == b'\t' || *b == b' ').next().unwrap_or(line)
}

/// Whether a file says so. Where it cannot be read nothing is known: its errno is the answer.
#[inline(never)]
fn listed(path: &CStr, is: &mut dyn FnMut(&[u8]) -> bool) -> Does {
    let mut found = false;
    lines(path, &mut |line| {
        found = is(line);
        !found
    })?;
    registered(found)
}

#[inline(never)]
pub fn file_system_type(name: &[u8]) -> Does {
    listed(c"/proc/filesystems", &mut |line| last(line) == name)
}

#[inline(never)]
pub fn protocol(name: &[u8]) -> Does {
    listed(c"/proc/net/protocols", &mut |line| line.starts_with(name) && line.get(name.len()) == Some(&b' '))
}

#[inline(never)]
pub fn misc(name: &[u8]) -> Does {
    listed(c"/proc/misc", &mut |line| last(line) == name)
}

/// A directory or file that only this makes. Where its file system is not there nothing is known.
#[inline(never)]
pub fn exists(path: &CStr) -> Does {
    let root = if path.to_bytes().starts_with(b"/sys") { c"/sys/class" } else { c"/proc/net/dev" };
    followed(root)?;
    match followed(path) {
        Err(ENOENT) => registered(false),
        other => other.map(|_| ()).map_err(No::from),
    }
}

/// Loaded as a module, or built in with a parameter to show.
#[inline(never)]
fn named(name: &[u8]) -> Does {
    if followed(Path::of(&[b"/sys/module/", name]).c()).is_ok() {
        return Ok(());
    }
    match listed(c"/proc/modules", &mut |line| line.split(|b| *b == b' ').next() == Some(name)) {
        // A kernel without modules, where /sys knows all there is to know.
        Err(_) if followed(c"/proc/modules") == Err(ENOENT) => {
            followed(c"/sys/module")?;
            registered(false)
        }
        other => other,
    }
}

/// A protocol of netlink: the kernel's own socket of it is in the list. The second column is the protocol.
#[inline(never)]
pub fn netlink(protocol: &[u8]) -> Does {
    listed(c"/proc/net/netlink", &mut |line| tidy(line).bytes().split(|b| *b == b' ').nth(1) == Some(protocol))
}

/// Its generation, by the subsystem of nfnetlink(7). Asked only where nfnetlink is registered and the kernel can load no
/// module; else the list of modules tells.
fn nf_tables() -> Does {
    if followed(c"/proc/modules") != Err(ENOENT) {
        return named(b"nf_tables");
    }
    netlink(b"12")?;
    let socket = Fd::of(ask!(nr::SOCKET, 16, 3 | O_CLOEXEC, 12)).at("socket")?;
    // nlmsghdr: length, type NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN, request; then nfgenmsg
    let message = [20u32, 0x1_0000 | 10 << 8 | 16, 1, 0, 0];
    ask!(nr::SENDTO, socket.0, &message, 20, 0, 0, 0).at("send")?;
    let mut room = [0u32; 64];
    // MSG_DONTWAIT: netlink has answered when the request returns.
    ask!(nr::RECVFROM, socket.0, &mut room, size_of_val(&room), 0x40, 0, 0).at("receive")?;
    // NLMSG_ERROR with a negative errno
    match room[1] & 0xffff {
        2 if room[4] as i32 == -EINVAL || room[4] as i32 == -EOPNOTSUPP => registered(false),
        2 => Err((room[4] as i32).wrapping_neg().into()),
        _ => Ok(()),
    }
}

/// A family of generic netlink, out of the list of all: to ask for it by name would load it.
#[inline(never)]
pub fn family(name: &[u8]) -> Does {
    let socket = Fd::of(ask!(nr::SOCKET, 16, 3 | O_CLOEXEC, 16)).at("socket")?;
    // nlmsghdr: length, type GENL_ID_CTRL, request and dump; then genlmsghdr CTRL_CMD_GETFAMILY version 1
    let message = [20u32, 0x301 << 16 | 16, 1, 0, 0x103];
    ask!(nr::SENDTO, socket.0, &message, 20, 0, 0, 0).at("send")?;
    let mut room = [0u32; 8192];
    loop {
        let n = ask!(nr::RECVFROM, socket.0, &mut room, size_of_val(&room), 0x40, 0, 0).at("receive")?;
        let words = &room[..(n / 4).min(room.len())];
        let mut at = 0;
        while at + 5 <= words.len() {
            let (size, kind) = ((words[at] as usize).div_ceil(4).max(4), words[at + 1] & 0xffff);
            if kind == 2 {
                return Err((words[at + 4] as i32).wrapping_neg().into());
            }
            if kind == 3 {
                return registered(false);
            }
            if family_name(&words[at + 5..(at + size).clamp(at + 5, words.len())], name) {
                return Ok(());
            }
            at += size;
        }
    }
}

/// Whether the attribute CTRL_ATTR_FAMILY_NAME (2) among these is `name`.
fn family_name(attributes: &[u32], name: &[u8]) -> bool {
    let mut rest = attributes;
    while let Some(head) = rest.first() {
        let (size, kind) = ((head & 0xffff) as usize, head >> 16 & 0x3fff);
        if kind == 2 && size == name.len() + 5 {
            return rest[1..].iter().flat_map(|word| word.to_ne_bytes()).take(name.len()).eq(name.iter().copied());
        }
        rest = rest.get(size.div_ceil(4).max(1)..).unwrap_or_default();
    }
    false
}
