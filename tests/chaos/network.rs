//! A network of its own: one namespace for each node, cabled to a bridge in one more. Nothing of it
//! touches the machine's network, and it goes with the program.

use std::{collections::BTreeSet, fs, net::Ipv4Addr, process::Command};

use anyhow::{Context as _, Result};
use hearth_tests::daemon::namespaces::{ip, name_of, remove_left_behind, run};

/// The port of every node.
pub(crate) const PORT: u16 = 7843;

/// How a pair is kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Packets vanish.
    Drop,
    /// Whoever sends is told that nobody is there.
    Reject,
}

/// The namespaces, removed when dropped.
#[derive(Debug)]
pub(crate) struct Network {
    names: Vec<String>,
    nodes: usize,
    /// Who does not hear whom: (who, whom).
    deaf: BTreeSet<(usize, usize)>,
    /// One that neither hears nor is heard, whatever else is cut.
    secluded: Option<usize>,
}

impl Network {
    /// As many nodes on one bridge.
    pub(crate) fn new(nodes: usize) -> Result<Self> {
        remove_left_behind();
        let mut network = Self { names: Vec::new(), nodes, deaf: BTreeSet::new(), secluded: None };
        let hub = network.add("hub")?;
        ip(&["-n", &hub, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "br0", "up"])?;
        for node in 0..nodes {
            let name = network.add(&format!("n{node}"))?;
            let port = format!("port{node}");
            ip(&[
                "link", "add", &port, "netns", &hub, "type", "veth", "peer", "name", "eth0", "netns", &name,
            ])?;
            ip(&["-n", &hub, "link", "set", &port, "master", "br0", "up"])?;
            ip(&["-n", &name, "addr", "add", &format!("{}/24", address(node)), "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
        }
        Ok(network)
    }

    /// The namespace of a node.
    pub(crate) fn namespace(&self, node: usize) -> String {
        name_of(&format!("n{node}"))
    }

    /// From now on nobody of the one side hears the other, nor the other way round.
    pub(crate) fn cut(&mut self, one: &[usize], other: &[usize], how: Cut) -> Result<()> {
        for a in one {
            for b in other {
                self.deaf.extend([(*a, *b), (*b, *a)]);
            }
        }
        self.apply(how)
    }

    /// From now on `who` does not hear `whom`, who hears it.
    pub(crate) fn deafen(&mut self, who: usize, whom: usize) -> Result<()> {
        self.deaf.insert((who, whom));
        self.apply(Cut::Drop)
    }

    /// From now on this one neither hears anybody nor is heard, until there is none; what else is cut stays so.
    pub(crate) fn seclude(&mut self, node: Option<usize>) -> Result<()> {
        self.secluded = node;
        self.apply(Cut::Drop)
    }

    fn hears(&self, who: usize, whom: usize) -> bool {
        let apart = self.secluded.is_some_and(|alone| (alone == who) != (alone == whom));
        !apart && !self.deaf.contains(&(who, whom))
    }

    /// Everybody hears everybody again.
    pub(crate) fn heal(&mut self) -> Result<()> {
        self.deaf.clear();
        self.apply(Cut::Drop)
    }

    fn apply(&self, how: Cut) -> Result<()> {
        for node in 0..self.nodes {
            let verdict = if how == Cut::Drop { "drop" } else { "reject" };
            let unheard: Vec<String> = (0..self.nodes)
                .filter(|other| !self.hears(node, *other))
                .map(|other| address(other).to_string())
                .collect();
            let mut rules = String::from("flush ruleset\n");
            if !unheard.is_empty() {
                let from = unheard.join(", ");
                rules.push_str(&format!(
                    "table inet chaos {{\n chain in {{\n type filter hook input priority 0; policy accept;\n\
                     ip saddr {{ {from} }} meta l4proto {{ tcp, udp }} th sport {PORT} {verdict}\n\
                     ip saddr {{ {from} }} meta l4proto {{ tcp, udp }} th dport {PORT} {verdict}\n }}\n}}\n"
                ));
            }
            let script = std::env::temp_dir().join(format!("{}.nft", name_of(&format!("n{node}"))));
            fs::write(&script, rules)?;
            let name = self.namespace(node);
            let mut nft = Command::new("ip");
            nft.args(["netns", "exec", &name, "nft", "-f"]).arg(&script);
            let applied = run(&mut nft);
            fs::remove_file(&script)?;
            applied?;
        }
        Ok(())
    }

    fn add(&mut self, name: &str) -> Result<String> {
        let name = name_of(name);
        ip(&["netns", "add", &name]).context("this program makes network namespaces: run it as root")?;
        self.names.push(name.clone());
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        Ok(name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            // One that is gone already is as it should be.
            let _ = ip(&["netns", "del", name]);
        }
    }
}

/// The address of a node.
pub(crate) fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, u8::try_from(node + 1).unwrap_or(u8::MAX))
}
