//! A home's network on one machine: namespaces joined by bridges, seen by nobody else.
//!
//! Each [`Network`] has one namespace that holds its switches and one for each board. Nothing leaves
//! it: no namespace has a way to the network of the machine. Needs root and iproute2.

use std::{
    fs::{self, File},
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    path::Path,
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Begins the name of every namespace made here; the process that made it follows.
const PREFIX: &str = "hearth";
/// Where `ip netns exec` looks for files of a namespace's own.
const ETC: &str = "/etc/netns";

/// A network; its namespaces go when it is dropped. Drop the daemons in it first.
#[derive(Debug)]
pub struct Network {
    prefix: String,
    switches: String,
    boards: Vec<String>,
    ports: u32,
}

impl Network {
    /// A network with these switches, each a bridge of its own.
    ///
    /// # Errors
    /// When it cannot be made: not root, no iproute2.
    pub fn new(switches: &[&str]) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        sweep();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}-{}-{count}", std::process::id());
        let network = Self { switches: format!("{prefix}-sw"), prefix, boards: Vec::new(), ports: 0 };
        network.make(&network.switches)?;
        for switch in switches {
            // A bridge that snoops would learn who wants multicast only after a while.
            network
                .link(&network.switches, &format!("add {switch} type bridge mcast_snooping 0 stp_state 0"))?;
            network.link(&network.switches, &format!("set {switch} up"))?;
        }
        Ok(network)
    }

    /// Adds a board without any network. Answers with the name of its namespace.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn board(&mut self, name: &str) -> Result<String> {
        let board = format!("{}-{name}", self.prefix);
        self.make(&board)?;
        self.boards.push(board.clone());
        Ok(board)
    }

    /// Plugs an interface of a board into a switch; it is up, without an IPv4 address.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn plug(&mut self, board: &str, interface: &str, switch: &str) -> Result<()> {
        self.ports += 1;
        let (port, switches) = (format!("port{}", self.ports), &self.switches);
        self.link(board, &format!("add {interface} type veth peer name {port} netns {switches}"))?;
        self.link(switches, &format!("set {port} master {switch} up"))?;
        self.link(board, &format!("set {interface} up"))
    }

    /// Takes the address of a board's interface away, if it has one, and gives it another, with the
    /// length of its prefix.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn address(&self, board: &str, interface: &str, address: &str) -> Result<()> {
        let family = if address.contains(':') { "-6" } else { "-4" };
        ip(&["-n", board, family, "address", "flush", "dev", interface, "scope", "global"])?;
        let mut add = vec!["-n", board, "address", "add", address, "dev", interface];
        if family == "-6" {
            add.push("nodad");
        }
        ip(&add).map(|_| ())
    }

    /// Runs `ip link` in a namespace.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn link(&self, board: &str, arguments: &str) -> Result<()> {
        let all: Vec<&str> = ["-n", board, "link"].into_iter().chain(arguments.split_whitespace()).collect();
        ip(&all).map(|_| ())
    }

    /// Runs a program on a board and answers with its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, board: &str, line: &[&str]) -> Result<String> {
        let all: Vec<&str> = ["netns", "exec", board].iter().chain(line).copied().collect();
        ip(&all)
    }

    /// A UDP socket on a board, as any program there might open one.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn udp(&self, board: &str, address: SocketAddr) -> Result<UdpSocket> {
        // A socket stays where it was made, and the thread that went there ends.
        there(board, || Ok(UdpSocket::bind(address)?))
    }

    /// Runs a test on a board: the sockets that it opens and the programs that it starts are there.
    ///
    /// # Errors
    /// When the board is not there.
    pub fn on(&self, board: &str, test: impl AsyncFnOnce() + Send) -> Result<()> {
        there(board, || {
            // On this thread alone: the others are not on the board.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(test());
            Ok(())
        })
    }

    /// Gives the programs on a board this `/etc/hosts`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn hosts(&self, board: &str, text: &str) -> Result<()> {
        let folder = Path::new(ETC).join(board);
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join("hosts"), text)?)
    }

    fn make(&self, namespace: &str) -> Result<()> {
        ip(&["netns", "add", namespace])?;
        self.link(namespace, "set lo up")?;
        // Nobody else is there, so nobody waits to see whether an address is taken.
        let settings = ["default.accept_dad=0", "all.accept_dad=0"].map(|it| format!("net.ipv6.conf.{it}"));
        self.run(namespace, &["sysctl", "-qw", &settings[0], &settings[1]]).map(|_| ())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.boards.iter().chain([&self.switches]).for_each(|namespace| remove(namespace));
    }
}

/// Does that on a thread that is in a namespace. A panic there is one here.
fn there<T: Send>(namespace: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let namespace = File::open(format!("/run/netns/{namespace}"))?;
    let done = std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        });
        thread.join()
    });
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The command that runs a program in a namespace.
#[must_use]
pub(crate) fn inside(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

/// Removes what a test left behind that was killed.
fn sweep() {
    let Ok(list) = ip(&["netns", "list"]) else { return };
    for name in list.lines().filter_map(|line| line.split_whitespace().next()) {
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('-')?.split('-').next());
        let is_left = process.is_some_and(|process| {
            process.parse::<u32>().is_ok() && !Path::new("/proc").join(process).exists()
        });
        if is_left {
            remove(name);
        }
    }
}

/// What cannot be removed now is swept by the next run, and another may be sweeping already.
fn remove(namespace: &str) {
    let _ = ip(&["netns", "delete", namespace]);
    let _ = fs::remove_dir_all(Path::new(ETC).join(namespace));
}

fn ip(arguments: &[&str]) -> Result<String> {
    let output = Command::new("ip").args(arguments).output();
    let output: Output = output.context("`ip` is missing: run tests/setup, which installs iproute2")?;
    ensure!(
        output.status.success(),
        "`ip {}` failed (run it as root): {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
