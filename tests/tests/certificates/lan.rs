//! A household of five boards and an authority, all at one switch. The name of the household leads to the last board: no other one
//! is reached by the authority.

use std::net::{IpAddr, SocketAddr};

use hearth_tests::{
    daemon::{Launch, Plan},
    network::Network,
    pebble,
};

use super::gateway::Site;

/// The challenges.
pub(crate) const CHALLENGES: [&str; 3] = ["http-01", "tls-alpn-01", "dns-01"];
/// The name of the household.
pub(crate) const NAME: &str = "home.hearth.test";
/// The boards.
const NAMES: [&str; 5] = ["one", "two", "three", "four", "five"];
/// Where the authority is.
const AUTHORITY: &str = "10.91.0.100";

fn address(board: usize) -> IpAddr {
    format!("10.91.0.{}", board + 1).parse().unwrap()
}

/// The boards and the authority, each with a namespace of its own.
pub(crate) struct Lan {
    network: Network,
    boards: Vec<String>,
    authority: String,
}

impl Lan {
    /// Nothing runs in it yet.
    pub(crate) fn new() -> Self {
        let mut network = Network::new(&["lan"]).unwrap();
        let mut plug = |name: &str, address: &str| {
            let board = network.board(name).unwrap();
            network.plug(&board, "eth0", "lan").unwrap();
            network.address(&board, "eth0", &format!("{address}/24")).unwrap();
            board
        };
        let boards =
            NAMES.iter().enumerate().map(|(at, name)| plug(name, &address(at).to_string())).collect();
        let authority = plug("ca", AUTHORITY);
        Self { network, boards, authority }
    }

    /// Runs a test where the authority is.
    pub(crate) fn run(&self, test: impl AsyncFnOnce() + Send) {
        self.network.on(&self.authority, test).unwrap();
    }

    /// The authority, which reaches the last board only. Call it where [`Lan::run`] does.
    pub(crate) async fn site(&self) -> Site {
        let plan = pebble::Plan { address: AUTHORITY.parse().unwrap(), ..pebble::Plan::new(80, 443) };
        let site = Site::at(address(0), plan).await;
        site.pebble.names.point(NAME, &[address(NAMES.len() - 1)]).await.unwrap();
        site
    }

    /// A gateway, whose clock is not known to be right: it orders nothing, and answers for those that do.
    pub(crate) fn answering(&self, site: &Site, challenge: &str, at: usize) -> Plan {
        self.plan(site, challenge, at, |launch| launch)
    }

    /// A gateway that orders.
    pub(crate) fn ordering(&self, site: &Site, challenge: &str, at: usize) -> Plan {
        self.plan(site, challenge, at, Launch::synchronised)
    }

    fn plan(&self, site: &Site, challenge: &str, at: usize, clock: impl FnOnce(Launch) -> Launch) -> Plan {
        let own = |port| SocketAddr::new(address(at), port);
        let config = site.config(challenge, &[NAME]).replace(&site.http.to_string(), &own(80).to_string());
        let launch = Launch::new().on_board(&self.boards[at]).listen(own(443));
        Plan::new(NAMES[at]).config(config).launch(clock(launch))
    }
}
