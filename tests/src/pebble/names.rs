//! The name server of the tests: `pebble-challtestsrv`, told over its management what to answer.

use std::{
    net::{IpAddr, SocketAddr},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::{MOST_TRIES, Trust, ask, program};
use crate::daemon::{PATIENCE, free_port, wait_until};

/// A running name server. It ends when dropped.
#[derive(Debug)]
pub struct Names {
    dns: SocketAddr,
    management: SocketAddr,
    process: Child,
}

impl Names {
    /// Starts one that knows no name.
    ///
    /// # Errors
    /// When it is not installed, or does not answer in time.
    pub async fn start(address: IpAddr) -> Result<Self> {
        for _ in 0..MOST_TRIES {
            let dns = SocketAddr::new(address, free_port()?);
            let management = SocketAddr::new(address, free_port()?);
            let mut command = Command::new(program("pebble-challtestsrv")?);
            command.args(["-dnsserver", &dns.to_string(), "-management", &management.to_string()]);
            // It answers no challenge itself, and no name stands for every address.
            command.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", ""]);
            command.args(["-defaultIPv4", "", "-defaultIPv6", ""]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
            let process = command.spawn().context("pebble-challtestsrv does not start")?;
            let mut names = Self { dns, management, process };
            if names.answers().await? {
                return Ok(names);
            }
        }
        bail!("pebble-challtestsrv started on none of {MOST_TRIES} pairs of ports")
    }

    /// Waits until it answers; false when it ended instead.
    async fn answers(&mut self) -> Result<bool> {
        let mut runs = false;
        wait_until("pebble-challtestsrv answers, or ends", PATIENCE, async || {
            if self.process.try_wait()?.is_some() {
                return Ok(true);
            }
            self.asked("hearth.test").await?;
            runs = true;
            Ok(true)
        })
        .await?;
        Ok(runs)
    }

    /// Where it answers questions.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.dns
    }

    /// Where it is told what to answer.
    #[must_use]
    pub fn management(&self) -> SocketAddr {
        self.management
    }

    /// A name leads to these addresses from now on, and to no others.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn point(&self, name: &str, addresses: &[IpAddr]) -> Result<()> {
        self.tell("clear-a", json!({ "host": name })).await?;
        if !addresses.is_empty() {
            self.tell("add-a", json!({ "host": name, "addresses": addresses })).await?;
        }
        Ok(())
    }

    /// A name has this text, too.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn text(&self, name: &str, text: &str) -> Result<()> {
        self.tell("set-txt", json!({ "host": format!("{name}."), "value": text })).await
    }

    /// A name has no text any more.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn no_text(&self, name: &str) -> Result<()> {
        self.tell("clear-txt", json!({ "host": format!("{name}.") })).await
    }

    /// Every question for a name fails (SERVFAIL) from now on, or does not any more.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn broken(&self, name: &str, is_broken: bool) -> Result<()> {
        let way = if is_broken { "set-servfail" } else { "clear-servfail" };
        self.tell(way, json!({ "host": name })).await
    }

    /// How often it was asked for a name.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn asked(&self, name: &str) -> Result<usize> {
        let answer = self.post("dns-request-history", json!({ "host": name })).await?;
        let history: Value = serde_json::from_str(&answer).with_context(|| answer.clone())?;
        Ok(history.as_array().map_or(0, Vec::len))
    }

    async fn tell(&self, way: &str, what: Value) -> Result<()> {
        self.post(way, what).await.map(|_| ())
    }

    async fn post(&self, way: &str, what: Value) -> Result<String> {
        let path = format!("/{way}");
        let reply = ask(self.management, &Trust::Plain, "POST", &path, &[], what.to_string()).await?;
        ensure!(reply.status == 200, "pebble-challtestsrv answered {reply:?}");
        Ok(reply.text())
    }
}
