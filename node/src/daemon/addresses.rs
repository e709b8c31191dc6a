//! Where this node can be reached.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use if_addrs::Interface;

use crate::discovery::Choice;

/// Most addresses that a node announces.
const MAX_ADDRESSES: usize = 8;

/// The addresses to announce: the configured ones, then those of the interfaces if it listens
/// on all of them, as far as they are chosen. Link-local addresses are left out, because they mean nothing elsewhere; the
/// loopback is announced only by a node that listens there alone.
pub fn reachable(listen: SocketAddr, advertise: &[SocketAddr], choice: &Choice) -> Vec<SocketAddr> {
    let mut addresses = advertise.to_vec();
    if listen.ip().is_unspecified() {
        let usable = interfaces_of(|name| choice.takes_name(name));
        let usable = usable.into_iter().filter(|ip| ip.is_ipv4() || listen.is_ipv6());
        addresses.extend(usable.map(|ip| SocketAddr::new(ip, listen.port())));
    } else {
        addresses.push(listen);
    }
    let mut seen = BTreeSet::new();
    addresses.retain(|address| seen.insert(*address));
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

/// The addresses of this machine's interfaces, without loopback and link-local ones.
pub fn interfaces() -> Vec<IpAddr> {
    interfaces_of(|_| true)
}

fn interfaces_of(is_chosen: impl Fn(&str) -> bool) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .filter(|interface| is_chosen(&interface.name))
        .map(|interface| interface.ip())
        .filter(|ip| !ip.is_loopback() && !is_link_local(*ip))
        .collect();
    found.sort_unstable();
    found
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Every address of the interfaces that are up.
pub fn up() -> BTreeSet<IpAddr> {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    all.into_iter().filter(Interface::is_oper_up).map(|interface| interface.ip()).collect()
}

/// The host's name.
pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "hearth".into(), |name| name.trim().into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_node_on_one_address_announces_that_one_after_the_configured() {
        let listen: SocketAddr = "127.0.0.1:4000".parse().unwrap();
        let extra: SocketAddr = "192.0.2.7:4000".parse().unwrap();
        let choice = Choice::new(listen, vec!["eth0".into()]);
        assert_eq!(reachable(listen, &[extra, extra], &choice), [extra, listen]);
    }
}
