//! Which addresses may be dialled because somebody announced them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use if_addrs::{IfAddr, Interface};

/// The address to dial, if an announcement may make this node dial it. Whoever can send multicast can
/// announce any address, and a dial sends some 1,200 bytes: so only addresses of this machine's
/// own networks and of private ranges count, and nothing that is no single other machine.
pub(super) fn dialable(ip: IpAddr, scope: u32, port: u16, own: &[Interface]) -> Option<SocketAddr> {
    let ip = ip.to_canonical();
    if port == 0 || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() {
        return None;
    }
    match ip {
        IpAddr::V4(v4) => (may_be_home_v4(v4) || own.iter().any(|at| is_beside_v4(at, v4)))
            .then(|| SocketAddr::new(ip, port)),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            // Without its interface it leads nowhere.
            (scope != 0).then(|| SocketAddrV6::new(v6, port, 0, scope).into())
        }
        IpAddr::V6(v6) => (v6.is_unique_local() || own.iter().any(|at| is_beside_v6(at, v6)))
            .then(|| SocketAddr::new(ip, port)),
    }
}

/// Private (RFC 1918), link-local (RFC 3927) or shared behind a provider (RFC 6598).
fn may_be_home_v4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    !ip.is_broadcast() && (ip.is_private() || ip.is_link_local() || (a == 100 && b & 0xc0 == 64))
}

fn is_beside_v4(interface: &Interface, ip: Ipv4Addr) -> bool {
    let IfAddr::V4(own) = &interface.addr else { return false };
    let mask = own.netmask.to_bits();
    let is_network_itself = ip.to_bits() & !mask == 0 || ip.to_bits() | mask == u32::MAX;
    mask.count_ones() >= 8
        && mask.count_ones() < 31
        && !is_network_itself
        && own.ip.to_bits() & mask == ip.to_bits() & mask
}

fn is_beside_v6(interface: &Interface, ip: Ipv6Addr) -> bool {
    let IfAddr::V6(own) = &interface.addr else { return false };
    let mask = own.netmask.to_bits();
    mask.count_ones() >= 48 && own.ip.to_bits() & mask == ip.to_bits() & mask
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use if_addrs::{IfOperStatus, Ifv4Addr, Ifv6Addr};

    fn interface(addr: IfAddr) -> Interface {
        let (name, index) = ("eth0".into(), Some(2));
        Interface { name, addr, index, oper_status: IfOperStatus::Up, is_p2p: false }
    }

    #[test]
    fn an_announcement_cannot_make_a_node_send_out_of_the_home() {
        let v4 = Ifv4Addr {
            ip: "203.0.113.5".parse().unwrap(),
            netmask: "255.255.255.0".parse().unwrap(),
            prefixlen: 24,
            broadcast: None,
        };
        let v6 = Ifv6Addr {
            ip: "2001:db8:0:7::5".parse().unwrap(),
            netmask: "ffff:ffff:ffff:ffff::".parse().unwrap(),
            prefixlen: 64,
            broadcast: None,
        };
        let own = [interface(IfAddr::V4(v4)), interface(IfAddr::V6(v6))];
        for good in [
            "192.168.1.7",
            "10.0.0.1",
            "172.31.0.9",
            "169.254.3.4",
            "100.64.0.1",
            "203.0.113.77",
            "fd00::7",
            "2001:db8:0:7::9",
            "::ffff:10.0.0.1",
        ] {
            let ip: IpAddr = good.parse().unwrap();
            assert_eq!(dialable(ip, 0, 9, &own), Some(SocketAddr::new(ip.to_canonical(), 9)), "{good}");
            assert_eq!(dialable(ip, 0, 0, &own), None, "{good} without a port");
        }
        for bad in [
            "8.8.8.8",
            "127.0.0.1",
            "0.0.0.0",
            "224.0.0.251",
            "255.255.255.255",
            "203.0.113.255",
            "203.0.113.0",
            "203.0.114.1",
            "100.128.0.1",
            "::1",
            "::",
            "ff02::fb",
            "2001:db8:0:8::9",
            "2606:4700::1111",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "fe80::1",
        ] {
            assert_eq!(dialable(bad.parse().unwrap(), 0, 9, &own), None, "{bad}");
        }
        let scoped = dialable("fe80::1".parse().unwrap(), 3, 9, &own).unwrap();
        assert_eq!(scoped.to_string(), "[fe80::1%3]:9");
    }
}
