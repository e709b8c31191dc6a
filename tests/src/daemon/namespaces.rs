//! Network namespaces joined by cables, so that each node has a network of its own. Needs root.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

/// Namespaces of one test, removed when dropped.
#[derive(Debug)]
pub struct Namespaces {
    names: Vec<String>,
}

impl Namespaces {
    /// Namespaces with these names, each alone with its loopback. Packets are not forwarded.
    ///
    /// # Errors
    /// When they cannot be made: not as root, or without `ip`.
    pub fn new(names: &[&str]) -> Result<Self> {
        remove_left_behind();
        let mut all = Self { names: Vec::new() };
        for name in names {
            let name = all.name(name);
            ip(&["netns", "add", &name])
                .context("network namespaces need root and iproute2: see tests/setup")?;
            all.names.push(name.clone());
            all.ip(&name, &["link", "set", "lo", "up"])?;
            let off = "echo 0 >/proc/sys/net/ipv4/ip_forward";
            run(Command::new("ip").args(["netns", "exec", &name, "sh", "-c", off]))?;
        }
        Ok(all)
    }

    /// The full name, for [`super::Plan::network`].
    #[must_use]
    pub fn name(&self, name: &str) -> String {
        name_of(name)
    }

    /// Joins two by a cable: the first has the address `subnet.1`, the second `subnet.2`.
    ///
    /// # Errors
    /// When that fails.
    pub fn cable(&self, one: &str, two: &str, subnet: &str) -> Result<()> {
        let (one_ns, two_ns) = (self.name(one), self.name(two));
        let (one_end, two_end) = (format!("to-{two}"), format!("to-{one}"));
        ip(&[
            "link", "add", &one_end, "netns", &one_ns, "type", "veth", "peer", "name", &two_end, "netns",
            &two_ns,
        ])?;
        for (namespace, end, host) in [(&one_ns, &one_end, 1), (&two_ns, &two_end, 2)] {
            self.ip(namespace, &["addr", "add", &format!("{subnet}.{host}/24"), "dev", end])?;
            self.ip(namespace, &["link", "set", end, "up"])?;
        }
        Ok(())
    }

    /// Pulls the cable of one out of another, or plugs it in again.
    ///
    /// # Errors
    /// When there is no cable.
    pub fn plug(&self, one: &str, other: &str, is_in: bool) -> Result<()> {
        let state = if is_in { "up" } else { "down" };
        self.ip(&self.name(one), &["link", "set", &format!("to-{other}"), state])
    }

    fn ip(&self, namespace: &str, args: &[&str]) -> Result<()> {
        ip(&[&["-n", namespace], args].concat())
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            // One that is gone already is as it should be.
            let _ = ip(&["netns", "del", name]);
        }
    }
}

/// The full name of a namespace of this process.
#[must_use]
pub fn name_of(name: &str) -> String {
    format!("hearth-{}-{name}", std::process::id())
}

/// Removes the namespaces of processes that were killed.
pub fn remove_left_behind() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("hearth-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = ip(&["netns", "del", &name]);
        }
    }
}

/// Runs `ip` with these arguments.
///
/// # Errors
/// When it fails, with what it said.
pub fn ip(args: &[&str]) -> Result<()> {
    run(Command::new("ip").args(args))
}

/// Runs a command to its end.
///
/// # Errors
/// When it fails, with what it said.
pub fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
