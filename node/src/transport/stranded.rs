//! Ends links whose way out of this machine is gone, so that others are looked for at once.
//!
//! A cable was pulled, another network was joined: packets of such a link go nowhere, and without
//! this it would be held for alive until nothing has been heard for the idle timeout.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use quinn::Connection;
use tokio::sync::watch;
use tracing::info;

use super::CloseCode;

/// Closes the connection when this machine loses the address or the route by which it goes. `here`
/// holds the addresses of the interfaces that are up. Ends with the connection.
pub(super) async fn watch_over(connection: Connection, mut here: watch::Receiver<BTreeSet<IpAddr>>) {
    loop {
        tokio::select! {
            _ = connection.closed() => return,
            changed = here.changed() => if changed.is_err() { return },
        }
        let (from, to) = (connection.local_ip(), connection.remote_address());
        if is_stranded(from, to, &here.borrow_and_update()) {
            info!(peer = %super::quic_link::canonical(to), "the way to a node is gone; looking for another");
            // It may not arrive; then the other side notices when this one comes by another way.
            connection.close(CloseCode::Done.number().into(), b"the address of this node has changed");
            return;
        }
    }
}

/// The side that accepted sends from the address that was dialled for as long as the connection
/// lives; the side that dialled sends from whichever the system picks.
fn is_stranded(from: Option<IpAddr>, to: SocketAddr, here: &BTreeSet<IpAddr>) -> bool {
    if here.is_empty() {
        return false;
    }
    match from.map(|from| from.to_canonical()) {
        Some(from) => !here.contains(&from),
        None => match source(to) {
            Some(source) => !here.contains(&source),
            None => true,
        },
    }
}

/// From where the system would send to an address; nothing is sent.
fn source(to: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_link_is_stranded_without_the_address_or_the_route_by_which_it_goes() {
        let here: BTreeSet<IpAddr> = ["127.0.0.1", "10.0.0.5"].map(|ip| ip.parse().unwrap()).into();
        let (to, from) = (SocketAddr::from(([10, 0, 0, 9], 1)), |ip: &str| Some(ip.parse().unwrap()));
        assert!(!is_stranded(from("10.0.0.5"), to, &here));
        assert!(!is_stranded(from("::ffff:10.0.0.5"), to, &here));
        assert!(is_stranded(from("10.0.0.6"), to, &here));
        assert!(!is_stranded(from("10.0.0.6"), to, &BTreeSet::new()), "nothing is known of the interfaces");
        let loopback = SocketAddr::from(([127, 0, 0, 1], 1));
        assert!(!is_stranded(None, loopback, &here));
        assert!(is_stranded(None, loopback, &["10.0.0.5".parse().unwrap()].into()));
    }
}
