//! Real nodes that get a certificate of a real authority.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use data_encoding::BASE64_MIME;
use hearth_tests::{
    daemon::{Daemon, Folder, Launch, PATIENCE, Plan, free_port, wait_until},
    fakes::name_server::{KEY, SECRET},
    pebble::{self, Pebble, Proxy, presented, trusting},
};
use rustls::{ClientConfig, pki_types::CertificateDer};
use serde_json::{Value, json};

/// The name of a node that is alone.
pub(crate) const NAME: &str = "one.hearth.test";
/// How long an order may take that failed once, say by three nonces in a row: a node waits a minute or so then.
const ORDERS_WITHIN: Duration = Duration::from_secs(180);

/// Puts values into the name server of the tests, and writes down what it did.
const HOOK: &str = r#"#!/bin/bash
set -eu
way=set-txt
[[ "$1" == cleanup ]] && way=clear-txt
body="{\"host\":\"${2%.}.\",\"value\":\"$3\"}"
exec 3<>/dev/tcp/ADDRESS/PORT
printf 'POST /%s HTTP/1.1\r\nHost: names\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' "$way" "${#body}" "$body" >&3
read -r _ status _ <&3
[[ "$status" == 200 ]]
echo "$1 ${2%.} $3" >>"LOG"
"#;

/// An authority with a proxy before it, and where the node is that it looks at.
pub(crate) struct Site {
    pub(crate) pebble: Pebble,
    pub(crate) proxy: Proxy,
    /// Where the node listens, for TLS and for plain HTTP.
    pub(crate) https: SocketAddr,
    pub(crate) http: SocketAddr,
    folder: Folder,
}

impl Site {
    /// On loopback.
    pub(crate) async fn new() -> Self {
        Self::with(|plan| plan).await
    }

    pub(crate) async fn with(change: impl FnOnce(pebble::Plan) -> pebble::Plan) -> Self {
        let (http, https) = (free_port().unwrap(), free_port().unwrap());
        let site = Self::at("127.0.0.1".parse().unwrap(), change(pebble::Plan::new(http, https))).await;
        site.pebble.names.point(NAME, &[site.https.ip()]).await.unwrap();
        site
    }

    /// Where the node is, and how the authority is started, which says at which ports it looks.
    pub(crate) async fn at(node: IpAddr, plan: pebble::Plan) -> Self {
        let (http, https) = (SocketAddr::new(node, plan.http_port), SocketAddr::new(node, plan.tls_port));
        let pebble = Pebble::start(plan).await.unwrap();
        let proxy = pebble.proxy().await.unwrap();
        let folder = Folder::new().unwrap();
        fs::write(folder.join("root.pem"), pebble.listener().root_pem()).unwrap();
        Self { pebble, proxy, https, http, folder }
    }

    /// `[tls]` for these names, with a profile, for Pebble takes one by chance where none is asked for.
    pub(crate) fn config(&self, challenge: &str, names: &[&str]) -> String {
        self.config_of("default", challenge, names)
    }

    /// The same with this profile: the shorter a certificate lives, the sooner it may be renewed.
    pub(crate) fn config_of(&self, profile: &str, challenge: &str, names: &[&str]) -> String {
        let (directory, root) = (self.proxy.directory(), self.folder.join("root.pem"));
        let mut config = format!(
            "[tls]\ndomains = {names:?}\ndirectory = \"{directory}\"\ndirectory_root = {root:?}\n\
             profile = \"{profile}\"\nchallenge = \"{challenge}\"\nhttp = \"{}\"\n",
            self.http
        );
        if challenge == "dns-01" {
            let (command, resolver) = (self.hook(), self.pebble.names.address());
            config.push_str(&format!(
                "[tls.dns]\nprovider = \"hook\"\ncommand = {command:?}\nresolvers = [\"{resolver}\"]\n"
            ));
        }
        config
    }

    /// `[tls]` for these names by DNS-01 at a real name server, which keeps this zone.
    pub(crate) fn config_at(&self, server: SocketAddr, zone: &str, names: &[&str]) -> String {
        let key = self.folder.join("dns.key");
        fs::write(&key, SECRET).unwrap();
        let config = self.config("http-01", names).replace("http-01", "dns-01");
        format!(
            "{config}[tls.dns]\nprovider = \"rfc2136\"\nserver = \"{server}\"\nzone = \"{zone}\"\n\
             key_name = \"{KEY}\"\nkey_file = {key:?}\nresolvers = [\"{server}\"]\n"
        )
    }

    /// The command that changes the name server.
    fn hook(&self) -> PathBuf {
        let (path, management) = (self.folder.join("hook"), self.pebble.names.management());
        let text = HOOK
            .replace("ADDRESS", &management.ip().to_string())
            .replace("PORT", &management.port().to_string())
            .replace("LOG", &self.folder.join("hook.log").display().to_string());
        // One that runs must not be written to.
        let fresh = self.folder.join("hook.new");
        fs::write(&fresh, text).unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o700)).unwrap();
        fs::rename(&fresh, &path).unwrap();
        path
    }

    /// What the command did, line by line.
    pub(crate) fn hooked(&self) -> Vec<String> {
        let log = fs::read_to_string(self.folder.join("hook.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// A node with this config file, whose clock is right.
    pub(crate) fn plan(&self, name: &str, config: &str) -> Plan {
        Plan::new(name).config(config).launch(Launch::new().listen(self.https).synchronised())
    }

    /// A client that trusts the authority alone.
    pub(crate) async fn client(&self) -> Arc<ClientConfig> {
        trusting(&[&self.pebble.root().await.unwrap()]).unwrap()
    }

    /// Waits until a node presents a certificate for a name; answers with its chain.
    pub(crate) async fn certified(&self, node: &Daemon, name: &str) -> Vec<CertificateDer<'static>> {
        let client = self.client().await;
        let mut chain = Vec::new();
        let what = format!("{} has a certificate for {name}", node.name());
        let done = wait_until(&what, ORDERS_WITHIN, async || {
            chain = presented(node.address(), name, &client).await?;
            Ok(true)
        });
        if let Err(error) = done.await {
            panic!("{error:#}\n{:#?}\n{}\n{}", self.proxy.steps(), self.pebble.log(), node.log());
        }
        chain
    }
}

/// When an authority suggests to renew: it is high time.
pub(crate) fn high_time() -> Value {
    json!({ "suggestedWindow": { "start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z" } })
}

/// A certificate as Pebble's management takes it.
pub(crate) fn pem(certificate: &CertificateDer<'_>) -> String {
    let lines = BASE64_MIME.encode(certificate);
    format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
}

/// No answer to a challenge is left in the household.
pub(crate) async fn nothing_is_left(node: &Daemon) {
    wait_until("no answer to a challenge is left", PATIENCE, async || {
        Ok(node.client().objects("challenge/").await?.is_empty())
    })
    .await
    .unwrap();
}
