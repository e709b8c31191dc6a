//! What the API is shown under: the local authority, names and addresses.

use std::{
    collections::BTreeSet,
    error::Error,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
};

use tokio::{
    net::UnixListener,
    sync::{mpsc, watch},
};
use tracing::warn;

use super::{addresses, challenges::public_port, parts::Parts};
use crate::{
    api::{self, Access, ApiContext, ListenInfo, serve::HttpServer},
    discovery::{Choice, InterfaceWatch},
    listener::WebConnection,
    store::files::write_private,
    tls::{
        WallClock, WebResolver,
        local_ca::{LocalCa, WebNames, may_vouch_for},
        resolver::WebRenewal,
    },
    transport::QuicTransport,
};

/// Begins to show certificates of the local authority. Answers with the authority's own in PEM, and with what shows them.
pub(super) fn local(
    tasks: &mut Parts,
    state_dir: &Path,
    names: watch::Receiver<WebNames>,
    clock: impl Fn() -> WallClock + Send + 'static,
) -> Result<(String, Arc<WebResolver>), Box<dyn Error>> {
    let ca = local_ca(state_dir)?;
    let pem = ca.ca_pem().to_owned();
    let renewal = WebRenewal::new(ca, names, clock)?;
    let resolver = renewal.resolver();
    tasks.spawn("the web certificate", renewal.run());
    Ok((pem, resolver))
}

fn local_ca(state_dir: &Path) -> Result<LocalCa, Box<dyn Error>> {
    let (certificate, key) = (state_dir.join("ca.pem"), state_dir.join("ca.key"));
    let read = |path: &Path| match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{} cannot be read: {error}; restore it or remove it", path.display())),
        Ok(text) => Ok(Some(text)),
    };
    match (read(&certificate)?, read(&key)?) {
        (Some(certificate), Some(key)) => LocalCa::from_pem(&certificate, &key)
            .map_err(|error| format!("ca.pem and ca.key in {}: {error}", state_dir.display()).into()),
        (certificate_before, _) => {
            if certificate_before.is_some() {
                warn!(
                    "ca.key is missing: a new certificate authority is made, which every browser must import again"
                );
            }
            let ca = LocalCa::generate(&addresses::hostname())?;
            write_private(&key, ca.key_pem().as_bytes())?;
            write_private(&certificate, ca.ca_pem().as_bytes())?;
            Ok(ca)
        }
    }
}

/// What the certificate is made out to: everything under which the API is announced.
pub(super) fn web_names(listen: SocketAddr, advertise: &[SocketAddr]) -> WebNames {
    let told = advertise.iter().chain([&listen]).map(SocketAddr::ip).filter(|ip| !ip.is_unspecified());
    let addresses: BTreeSet<IpAddr> = addresses::interfaces().into_iter().chain(told).collect();
    WebNames { hostname: addresses::hostname(), addresses: addresses.into_iter().collect() }
}

pub(super) fn listen_info(
    address: SocketAddr,
    advertise: &[SocketAddr],
    reachable: &[SocketAddr],
) -> ListenInfo {
    let is_everywhere = address.ip().is_unspecified();
    // Under an address for which the authority may not vouch, clients refuse the certificate: such
    // a one is told only when there is no other.
    let vouched = reachable.iter().filter(|at| may_vouch_for(&at.ip().to_canonical()));
    let mut api: Vec<String> = vouched.map(|at| format!("https://{at}")).collect();
    if api.is_empty() && !is_everywhere {
        api.extend(reachable.iter().map(|at| format!("https://{at}")));
    }
    if is_everywhere {
        api.push(format!("https://localhost:{}", address.port()));
    }
    let public_port = public_port(advertise, address.port());
    ListenInfo { listen: address.to_string(), api, public_port }
}

/// Serves the API over the socket, and to whoever comes through the channel.
pub(super) fn serve(
    tasks: &mut Parts,
    context: &Arc<ApiContext>,
    socket: UnixListener,
) -> mpsc::Sender<WebConnection> {
    let server = |access| {
        HttpServer::new(api::router(context, access), context.metrics.clone(), context.shutdown.clone())
    };
    let (local, public) = (server(Access::Socket), server(Access::Bearer));
    tasks.spawn("the socket", async move { api::serve::accept_unix(socket, &local).await });
    let (sender, mut connections) = mpsc::channel::<WebConnection>(32);
    tasks.spawn("the web server", async move {
        while let Some(connection) = connections.recv().await {
            let public = public.clone();
            tokio::spawn(async move { public.serve_stream(connection.stream, Some(connection.guest)).await });
        }
    });
    sender
}

/// Announces the addresses of the interfaces as they change, and has links end that lost theirs.
pub(super) async fn follow_addresses(
    quic: QuicTransport,
    listen: SocketAddr,
    advertise: Vec<SocketAddr>,
    choice: Choice,
    addresses: watch::Sender<Vec<SocketAddr>>,
    names: watch::Sender<WebNames>,
    info: watch::Sender<ListenInfo>,
) {
    let mut interfaces = InterfaceWatch::new();
    loop {
        let here = addresses::reachable(listen, &advertise, &choice);
        quic.here(addresses::up());
        replace(&info, listen_info(listen, &advertise, &here));
        replace(&addresses, here);
        replace(&names, web_names(listen, &advertise));
        interfaces.changed().await;
    }
}

fn replace<T: PartialEq>(channel: &watch::Sender<T>, next: T) {
    channel.send_if_modified(|present| {
        let differs = *present != next;
        if differs {
            *present = next;
        }
        differs
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    const NOW: WallClock = WallClock { unix: 1_800_000_000, trusted: true };

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_certificate_holds_for_every_address_under_which_the_api_is_told() {
        let ca = LocalCa::generate(&addresses::hostname()).unwrap();
        // Behind a router, in a container, on one address: none of these is of an interface here.
        for (listen, advertise) in [
            (at("0.0.0.0:7843"), vec![at("192.168.77.5:7843"), at("203.0.113.9:7843")]),
            (at("127.0.0.7:7843"), vec![]),
            (at("10.99.1.2:7843"), vec![at("[fd00::77]:7843")]),
        ] {
            let choice = Choice::new(listen, Vec::new());
            let reachable = addresses::reachable(listen, &advertise, &choice);
            let told = listen_info(listen, &advertise, &reachable);
            assert!(advertise.is_empty() || told.api.len() >= 2, "{told:?}");
            let leaf = ca.issue(&web_names(listen, &advertise), NOW).unwrap();
            for url in &told.api {
                let host = url.strip_prefix("https://").and_then(|rest| rest.rsplit_once(':')).unwrap().0;
                let host = host.trim_matches(['[', ']']);
                ca.check(&leaf.key.cert[0], host, NOW.unix).unwrap_or_else(|error| panic!("{url}: {error}"));
            }
        }
        let public = at("203.0.113.9:7843");
        assert_eq!(
            listen_info(public, &[], &[public]).api,
            ["https://203.0.113.9:7843"],
            "better than nothing"
        );
    }
}
