//! The challenges of certificate authorities: who gives the answers, and the HTTP port.

use std::{net::SocketAddr, sync::Arc};

use mesh_proto::ShortId;
use tokio::sync::watch;

use super::parts::Parts;
use crate::{
    config::Config,
    plain_http::{HttpCounters, HttpPort, PortStatus, Site},
    service::{HouseholdTime, Service},
    tls::{
        WebNames,
        acme::answers::{Answers, Served, Serves},
    },
};

/// The port that a URL with `https` need not name.
const HTTPS: u16 = 443;

/// What the rest of the node has to do with challenges.
pub(super) struct Challenges {
    /// For the listener.
    pub answers: watch::Receiver<Arc<Served>>,
    /// Where the HTTP port stands.
    pub http_port: watch::Receiver<PortStatus>,
    /// What happened on it.
    pub counters: Arc<HttpCounters>,
}

/// What it takes.
pub(super) struct ChallengesParts<'a> {
    pub config: &'a Config,
    pub service: Service,
    pub me: ShortId,
    pub time: watch::Receiver<HouseholdTime>,
    pub names: watch::Receiver<WebNames>,
    /// The port of the API.
    pub api_port: u16,
}

impl Challenges {
    /// Begins to answer. A node with public names is a gateway; others only help to clear away what is over.
    pub(super) fn spawn(tasks: &mut Parts, parts: ChallengesParts<'_>) -> Self {
        let ChallengesParts { config, service, me, time, names, api_port } = parts;
        let is_gateway = !config.tls.domains.is_empty();
        let (serves, serves_rx) =
            watch::channel(is_gateway.then_some(Serves { http: false, tls_alpn: true }));
        let (answers, owner) = Answers::new(service, me, time, serves_rx);
        tasks.spawn("the answers to challenges", owner.run());
        let site = Site {
            answers: answers.clone(),
            domains: config.tls.domains.clone(),
            names,
            api_port,
            public_port: public_port(&config.advertise, api_port),
        };
        let counters = Arc::new(HttpCounters::default());
        let address = config.tls.http.filter(|_| is_gateway);
        let (status, http_port) = watch::channel(match (is_gateway, address) {
            (false, _) => PortStatus::NotNeeded,
            (true, None) => PortStatus::Off,
            (true, Some(_)) => PortStatus::Opening,
        });
        match address {
            Some(address) => {
                let port = HttpPort::new(address, site, counters.clone(), status, serves);
                tasks.spawn("the HTTP port", port.run());
            }
            // What is answered never changes; whoever said so must not be gone.
            None => tasks.spawn("the HTTP port", async move {
                let _kept = serves;
                std::future::pending().await
            }),
        }
        Self { answers, http_port, counters }
    }
}

/// Under which port the public names are reached: 443 where that is announced, since a router maps it to the port of
/// the API then; else the port of the API.
pub(super) fn public_port(advertise: &[SocketAddr], api_port: u16) -> u16 {
    let maps = advertise.iter().any(|address| address.port() == HTTPS);
    if maps { HTTPS } else { api_port }
}
