//! One connection with the broker, MQTT 5. Nothing of it outlives it: what was not taken when it ends is not sent later.
//!
//! Source: OASIS standard "MQTT Version 5.0" (<https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html>).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{ConnectReturnCode, LastWill};
use rumqttc::{
    AsyncClient, Broker as Address, ConnectionError, Event as MqttEvent, EventLoop, Incoming, MqttOptions,
    PublishOptions, StateError, TlsConfiguration, Transport,
};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::adapter::AdapterError;
use crate::http::public_tls;

use super::ID;
use super::config::{Broker, Config};
use super::output::{Token, Transmit};

/// The largest message that is taken, in bytes; the broker is told, and keeps back what is larger.
const MOST_PACKET: u32 = 256 * 1_024;
/// The most messages of the broker that wait here; more wait in the network.
const MOST_EVENTS: usize = 16;
/// The most messages that are sent and not yet taken.
const MOST_PENDING: usize = 16;
/// The most that the library holds; less than it needs for all that is pending is never asked of it.
const MOST_REQUESTS: usize = 64;
/// Messages that may wait for the broker's acknowledgement.
const MOST_INFLIGHT: u16 = 256;
/// How often the broker is asked whether it is there, in seconds.
const KEEP_ALIVE: u16 = 10;
/// How long a connection may take to be made.
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);
/// How long the broker may take to take what is said at the end, and the good-bye.
const ENDS_WITHIN: Duration = Duration::from_millis(700);
/// The largest file of certificates, in bytes.
const MOST_CA: u64 = 1_024 * 1_024;

/// What happens on a connection.
#[derive(Debug)]
pub(super) enum Event {
    /// The broker let us in.
    Up,
    /// A message.
    Message {
        topic: String,
        payload: Bytes,
        /// Whether the broker kept it from before.
        retained: bool,
    },
    /// The broker took a message, or refused it.
    Published(Token, Result<(), String>),
    /// It is over.
    Down(Fault),
}

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The broker does not let us in.
    Refused(String),
    /// Anything else.
    Broken(String),
}

/// The end of something that was sent.
type Ending = Pin<Box<dyn Future<Output = (Option<Token>, Result<(), String>)> + Send>>;

/// A connection that is being made, or is there.
pub(super) struct Link {
    client: AsyncClient,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
    pending: FuturesUnordered<Ending>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    /// Begins to connect.
    pub(super) fn start(
        config: &Config,
        broker: &Broker,
        tls: Option<Arc<ClientConfig>>,
        client_id: &str,
        will: &str,
    ) -> Self {
        let options = options(config, broker, tls, client_id, will);
        let (client, connection) = AsyncClient::builder(options).capacity(MOST_REQUESTS).build();
        let (sender, events) = mpsc::channel(MOST_EVENTS);
        let task = tokio::spawn(carry(connection, sender));
        Self { client, events, task, pending: FuturesUnordered::new() }
    }

    /// Whether another message may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.pending.len() < MOST_PENDING
    }

    /// Sends one.
    pub(super) fn send(&mut self, transmit: Transmit) {
        let lost = |error: &dyn std::fmt::Display| Err(format!("it could not be sent: {error}"));
        let (ending, token): (Ending, _) = match transmit {
            Transmit::Publish { topic, payload, retain, token } => {
                let options = PublishOptions::at_least_once().retain(retain);
                match self.client.try_publish_tracked(topic, payload, options) {
                    Ok(notice) => {
                        let ending = async move {
                            (token, notice.wait_completion_async().await.map_err(|error| error.to_string()))
                        };
                        (Box::pin(ending), token)
                    }
                    Err(error) => (Box::pin(std::future::ready((token, lost(&error)))), token),
                }
            }
            Transmit::Subscribe(filter) => {
                match self.client.try_subscribe_tracked(filter.clone(), QoS::AtMostOnce) {
                    Ok(notice) => (
                        Box::pin(async move {
                            if let Err(error) = notice.wait_completion_async().await {
                                tracing::warn!(filter, %error, "the MQTT broker does not let us listen");
                            }
                            (None, Ok(()))
                        }),
                        None,
                    ),
                    Err(error) => (Box::pin(std::future::ready((None, lost(&error)))), None),
                }
            }
            Transmit::Unsubscribe(filter) => {
                let asked = self.client.try_unsubscribe(filter).map_err(|error| error.to_string());
                (Box::pin(std::future::ready((None, asked))), None)
            }
        };
        tracing::trace!(?token, "MQTT message sent");
        self.pending.push(ending);
    }

    /// What happens next; messages are left where they are unless they are wanted. Safe to cancel.
    pub(super) async fn next(&mut self, takes_messages: bool) -> Event {
        loop {
            tokio::select! {
                Some((token, result)) = self.pending.next(), if !self.pending.is_empty() => {
                    if let Err(error) = &result {
                        tracing::debug!(error, "an MQTT message was not taken");
                    }
                    if let Some(token) = token {
                        return Event::Published(token, result);
                    }
                    // Something else may be sent now.
                    if !takes_messages {
                        return Event::Published(Token(0), Ok(()));
                    }
                }
                event = self.events.recv(), if takes_messages => {
                    let over = || Event::Down(Fault::Broken("the connection ended".to_owned()));
                    return event.unwrap_or_else(over);
                }
                else => std::future::pending().await,
            }
            if self.has_room() && self.pending.len() + 1 == MOST_PENDING {
                return Event::Published(Token(0), Ok(()));
            }
        }
    }

    /// Sends the rest, and says good-bye.
    pub(super) async fn end(mut self, rest: impl Iterator<Item = Transmit>) {
        for transmit in rest {
            self.send(transmit);
        }
        let taken = async { while self.pending.next().await.is_some() {} };
        let read = async { while self.events.recv().await.is_some() {} };
        let _ = timeout(ENDS_WITHIN, async {
            tokio::select! { () = taken => {}, () = read => {} }
        })
        .await;
        let Self { client, events, task, .. } = &mut self;
        if client.try_disconnect().is_ok() {
            let _ = timeout(ENDS_WITHIN, async {
                while events.recv().await.is_some() {}
                let _ = task.await; // it ended, or was cancelled
            })
            .await;
        }
    }
}

/// The certificates to trust, of the file that was named or of the system.
pub(super) async fn tls(config: &Config) -> Result<Arc<ClientConfig>, AdapterError> {
    let Some(path) = &config.ca else {
        return public_tls().map_err(|what| AdapterError::Unconfigured { adapter: ID, what });
    };
    let failed = |source: io::Error| AdapterError::Io {
        adapter: ID,
        what: format!("cannot read the certificates in {}", path.display()),
        source,
    };
    let size = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if size > MOST_CA {
        return Err(failed(io::Error::other(format!("{size} bytes are too many"))));
    }
    let pem = tokio::fs::read(path).await.map_err(failed)?;
    trusting(&pem).map_err(|why| failed(io::Error::other(why)))
}

fn trusting(pem: &[u8]) -> Result<Arc<ClientConfig>, String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("it holds no certificate in PEM".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

fn options(
    config: &Config,
    broker: &Broker,
    tls: Option<Arc<ClientConfig>>,
    client_id: &str,
    will: &str,
) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, Address::tcp(broker.host.clone(), broker.port));
    let (route, host, port) = (config.route.clone(), broker.host.clone(), broker.port);
    options.set_socket_connector(move |_, _| {
        let (route, host) = (route.clone(), host.clone());
        async move { route.connect(&host, port, CONNECTS_WITHIN).await }
    });
    if let Some(tls) = tls {
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
    }
    match (&config.username, &config.password) {
        (Some(username), Some(password)) => {
            options.set_credentials(username.clone(), password.0.clone());
        }
        (Some(username), None) => {
            options.set_username(username.clone());
        }
        (None, Some(password)) => {
            options.set_password(password.0.clone());
        }
        (None, None) => {}
    }
    if config.export {
        options.set_last_will(LastWill::new(will, "offline", QoS::AtLeastOnce, true, None));
    }
    options
        .set_keep_alive(KEEP_ALIVE)
        .set_clean_start(true)
        // Longer than the connection itself may take, which then says what is wrong.
        .set_connect_timeout(CONNECTS_WITHIN * 2)
        // The library makes room for all of them at once: without a limit 65,536, which is 14 MB.
        .set_outgoing_inflight_upper_limit(MOST_INFLIGHT)
        .set_request_channel_capacity(MOST_REQUESTS)
        .set_read_batch_size(MOST_EVENTS)
        .set_max_packet_size(Some(MOST_PACKET));
    options
}

/// Carries messages until the connection is over.
async fn carry(mut connection: EventLoop, events: mpsc::Sender<Event>) {
    loop {
        let event = match connection.poll().await {
            Ok(MqttEvent::Incoming(Incoming::ConnAck(_))) => Event::Up,
            Ok(MqttEvent::Incoming(Incoming::Publish(publish))) => {
                let Ok(topic) = std::str::from_utf8(&publish.topic) else { continue };
                let (topic, retained) = (topic.to_owned(), publish.retain);
                Event::Message { topic, payload: publish.payload, retained }
            }
            Ok(_) => continue,
            Err(ConnectionError::RequestsDone) => return,
            Err(error) => {
                let _ = events.send(Event::Down(fault(&error))).await; // nobody waits for it any more
                return;
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

fn fault(error: &ConnectionError) -> Fault {
    let code = match error {
        ConnectionError::ConnectionRefused(code) => Some(*code),
        ConnectionError::MqttState(StateError::ConnFail { reason }) => Some(*reason),
        _ => None,
    };
    match code {
        Some(
            code @ (ConnectReturnCode::BadUserNamePassword
            | ConnectReturnCode::NotAuthorized
            | ConnectReturnCode::Banned
            | ConnectReturnCode::BadAuthenticationMethod),
        ) => Fault::Refused(format!("{code:?}")),
        Some(ConnectReturnCode::RefusedProtocolVersion | ConnectReturnCode::UnsupportedProtocolVersion) => {
            Fault::Broken("it does not speak MQTT 5: mosquitto does from version 1.6 on".to_owned())
        }
        Some(code) => Fault::Broken(format!("it answers {code:?}")),
        None => Fault::Broken(error.to_string()),
    }
}
