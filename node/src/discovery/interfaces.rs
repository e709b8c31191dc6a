//! The network interfaces of this machine: which are used, and when they change.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use if_addrs::Interface;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, socket_with};
use tokio::net::UdpSocket;
use tracing::debug;

/// Changes come in crowds; this long after the last of them all have come.
const SETTLE: Duration = Duration::from_millis(100);
/// After this many it is looked though more come.
const MOST_NEWS: u32 = 256;
/// How often is looked without being told, where the system does not tell.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often is looked though the system tells.
const LOOK_ANYWAY: Duration = Duration::from_secs(30);
/// Multicast groups of rtnetlink(7): links, IPv4 addresses, IPv6 addresses.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;

/// Which interfaces a node uses for the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    listen: IpAddr,
    names: Vec<String>,
}

impl Choice {
    /// Those on which a node that listens there can be reached, and of these the ones with these
    /// names; no name means all.
    pub fn new(listen: SocketAddr, names: Vec<String>) -> Self {
        Self { listen: listen.ip().to_canonical(), names }
    }

    /// Whether the node can be reached from this machine only.
    pub fn is_loopback(&self) -> bool {
        self.listen.is_loopback()
    }

    /// The names that were chosen; none means all.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether this address of an interface is used.
    pub fn takes(&self, interface: &Interface) -> bool {
        let ip = interface.ip();
        let is_heard = match self.listen {
            IpAddr::V4(listen) if listen.is_unspecified() => ip.is_ipv4(),
            IpAddr::V6(listen) if listen.is_unspecified() => true,
            listen => ip == listen,
        };
        is_heard && !interface.is_loopback() && self.takes_name(&interface.name)
    }

    /// Whether an interface of this name is used.
    pub fn takes_name(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|chosen| chosen == name)
    }

    /// The addresses in use of interfaces that are up.
    pub fn present(&self) -> Vec<Interface> {
        let all = if_addrs::get_if_addrs().unwrap_or_default();
        all.into_iter().filter(|interface| interface.is_oper_up() && self.takes(interface)).collect()
    }
}

/// Tells when links or addresses of this machine change.
#[derive(Debug)]
pub struct InterfaceWatch {
    /// None where the system does not tell, such as in a sandbox without netlink.
    socket: Option<UdpSocket>,
}

impl InterfaceWatch {
    /// Begins to listen. Must be called within a tokio runtime.
    pub fn new() -> Self {
        let socket = open().inspect_err(|reason| {
            debug!(%reason, "the system does not tell when interfaces change; they are looked at every few seconds");
        });
        Self { socket: socket.ok() }
    }

    /// Waits until something may have changed; at times nothing has. Safe to cancel.
    pub async fn changed(&mut self) {
        let Some(socket) = &self.socket else { return tokio::time::sleep(LOOK_EVERY).await };
        tokio::select! {
            () = news(socket) => {}
            () = tokio::time::sleep(LOOK_ANYWAY) => return,
        }
        let mut more = 0..MOST_NEWS;
        while more.next().is_some() && tokio::time::timeout(SETTLE, news(socket)).await.is_ok() {}
    }
}

impl Default for InterfaceWatch {
    fn default() -> Self {
        Self::new()
    }
}

fn open() -> io::Result<UdpSocket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // No protocol is the number 0, which is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    // It is none of UDP, but is waited for and read like one.
    UdpSocket::from_std(std::net::UdpSocket::from(socket))
}

/// Waits for a message. What it says is not read: what is there now is asked anew, so it does no harm
/// that some are lost when too many come, which the system tells as an error.
async fn news(socket: &UdpSocket) {
    let mut buffer = [0; 4_096];
    // A message that is longer is cut.
    let _ = socket.recv(&mut buffer).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use if_addrs::{IfAddr, IfOperStatus, Ifv4Addr, Ifv6Addr};

    fn interface(name: &str, ip: &str) -> Interface {
        let addr = match ip.parse().unwrap() {
            IpAddr::V4(ip) => IfAddr::V4(Ifv4Addr {
                ip,
                netmask: [255, 255, 255, 0].into(),
                prefixlen: 24,
                broadcast: None,
            }),
            IpAddr::V6(ip) => {
                let netmask = "ffff:ffff:ffff:ffff::".parse().unwrap();
                IfAddr::V6(Ifv6Addr { ip, netmask, prefixlen: 64, broadcast: None })
            }
        };
        Interface { name: name.into(), addr, index: Some(2), oper_status: IfOperStatus::Up, is_p2p: false }
    }

    fn taken(listen: &str, names: &[&str]) -> Vec<&'static str> {
        let names = names.iter().map(ToString::to_string).collect();
        let choice = Choice::new(listen.parse().unwrap(), names);
        let all = [
            ("lo", "127.0.0.1"),
            ("lo", "::1"),
            ("eth0", "10.0.0.5"),
            ("eth0", "fe80::5"),
            ("wlan0", "10.0.1.5"),
        ];
        all.into_iter().filter(|(name, ip)| choice.takes(&interface(name, ip))).map(|(_, ip)| ip).collect()
    }

    #[test]
    fn interfaces_are_chosen_by_name_and_by_where_the_node_listens() {
        assert_eq!(taken("0.0.0.0:1", &[]), ["10.0.0.5", "10.0.1.5"]);
        assert_eq!(taken("[::]:1", &[]), ["10.0.0.5", "fe80::5", "10.0.1.5"]);
        assert_eq!(taken("[::]:1", &["eth0"]), ["10.0.0.5", "fe80::5"]);
        assert_eq!(taken("10.0.1.5:1", &[]), ["10.0.1.5"]);
        assert_eq!(taken("10.0.1.5:1", &["eth0"]), [""; 0]);
        assert_eq!(taken("127.0.0.1:1", &["lo"]), [""; 0]);
        assert!(Choice::new("127.0.0.1:1".parse().unwrap(), Vec::new()).is_loopback());
        assert!(Choice::new("[::1]:1".parse().unwrap(), Vec::new()).is_loopback());
    }
}
