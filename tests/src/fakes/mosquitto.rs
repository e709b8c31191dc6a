//! A real MQTT broker (mosquitto) for one test, and clients of it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rumqttc::mqttbytes::QoS;
use rumqttc::{AsyncClient, Broker as Address, Event, Incoming, MqttOptions, PublishOptions};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::daemon::{Folder, PATIENCE, free_port, wait_until};

/// Where Debian puts it.
const PROGRAM: &str = "/usr/sbin/mosquitto";
/// What its certificate is called.
const CERTIFICATE: &str = "cert.pem";
/// Where it says what it does.
const LOG: &str = "mosquitto.log";
/// How many ports are tried: somebody else may take one between the look and the start.
const MOST_TRIES: usize = 8;
/// The largest message of a test, in bytes: the broker has no bound of its own.
const MOST_PACKET: u32 = 200 * 1_024 * 1_024;

/// A broker on a free port of this machine alone.
#[derive(Debug)]
pub struct Mosquitto {
    port: u16,
    /// Where it speaks without TLS and lets everybody in, for the clients of the tests.
    plain: u16,
    process: Option<Child>,
    folder: Folder,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// Whether the broker kept it.
    pub retained: bool,
}

impl Mosquitto {
    /// Starts one that lets everybody in.
    ///
    /// # Errors
    /// When it is not installed, or does not listen in time.
    pub async fn start() -> Result<Self> {
        Self::with("allow_anonymous true\n").await
    }

    /// Starts one that wants a name and a password.
    ///
    /// # Errors
    /// As [`Mosquitto::start`].
    pub async fn with_password(name: &str, password: &str) -> Result<Self> {
        let folder = Folder::new()?;
        let file = folder.join("passwords");
        let mut make = Command::new("/usr/bin/mosquitto_passwd");
        make.args(["-b", "-c"]).arg(&file).args([name, password]).stderr(Stdio::null());
        ensure!(make.status().await?.success(), "mosquitto_passwd failed");
        let of_first =
            format!("per_listener_settings true\nallow_anonymous false\npassword_file {}\n", file.display());
        Self::run(folder, &of_first, Some("allow_anonymous true\n"), free_port).await
    }

    /// Starts one that speaks TLS, with a certificate of its own.
    ///
    /// # Errors
    /// As [`Mosquitto::start`].
    pub async fn with_tls() -> Result<Self> {
        let folder = Folder::new()?;
        let (certificate, key) = (folder.join(CERTIFICATE), folder.join("key.pem"));
        let mut make = Command::new("openssl");
        make.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=broker"]);
        make.args([
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ]);
        make.arg("-keyout").arg(&key).arg("-out").arg(&certificate).stderr(Stdio::null());
        ensure!(make.status().await?.success(), "openssl makes no certificate");
        let of_first = format!("certfile {}\nkeyfile {}\n", certificate.display(), key.display());
        Self::run(folder, &of_first, Some("allow_anonymous true\n"), free_port).await
    }

    /// The certificate of one that speaks TLS.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.join(CERTIFICATE)
    }

    /// Starts one with such lines in its configuration.
    ///
    /// # Errors
    /// As [`Mosquitto::start`].
    pub async fn with(config: &str) -> Result<Self> {
        Self::run(Folder::new()?, config, None, free_port).await
    }

    /// With these lines for its listener, and perhaps those of a plain one beside it.
    async fn run(
        folder: Folder,
        of_first: &str,
        of_plain: Option<&str>,
        mut choose: impl FnMut() -> Result<u16>,
    ) -> Result<Self> {
        ensure!(Path::new(PROGRAM).exists(), "{PROGRAM} is missing: run tests/setup, which installs it");
        let mut broker = Self { port: 0, plain: 0, process: None, folder };
        for _ in 0..MOST_TRIES {
            broker.port = choose()?;
            broker.plain = if of_plain.is_some() { choose()? } else { broker.port };
            let (port, plain) = (broker.port, broker.plain);
            let beside = of_plain.map(|lines| format!("listener {plain} 127.0.0.1\n{lines}"));
            let beside = beside.unwrap_or_default();
            // It gives up being root unless it is told not to, and could not write the folder then.
            let config = format!(
                "listener {port} 127.0.0.1\n{of_first}{beside}user root\npersistence true\npersistence_location {}\n\
                 set_tcp_nodelay true\nlog_dest file {}\nlog_type error\nlog_type information\n\
                 connection_messages false\nmax_queued_messages 0\n",
                broker.folder.join("").display(),
                broker.folder.join(LOG).display(),
            );
            std::fs::write(broker.folder.join("mosquitto.conf"), config)?;
            if broker.begin().await? {
                return Ok(broker);
            }
        }
        bail!("mosquitto started on none of {MOST_TRIES} ports: {}", broker.said())
    }

    /// Starts the program; false when it ends at once, as it does when its port is taken.
    async fn begin(&mut self) -> Result<bool> {
        // Of the run before.
        let _ = std::fs::remove_file(self.folder.join(LOG));
        let mut command = Command::new(PROGRAM);
        command.arg("-c").arg(self.folder.join("mosquitto.conf"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let mut process = command.spawn().context("mosquitto does not start")?;
        let mut runs = false;
        wait_until("mosquitto listens, or ends", PATIENCE, async || {
            runs = self.said().contains(" running\n");
            Ok(runs || process.try_wait()?.is_some())
        })
        .await?;
        self.process = runs.then_some(process);
        Ok(runs)
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.folder.join(LOG)).unwrap_or_default()
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Stops it, as a machine that is shut down does: what it keeps is written.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        signal(&process, rustix::process::Signal::TERM)?;
        process.wait().await?;
        Ok(())
    }

    /// Starts it again on the same port.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub async fn again(&mut self) -> Result<()> {
        ensure!(self.begin().await?, "mosquitto does not start again at {}: {}", self.address(), self.said());
        Ok(())
    }

    /// Holds it, so that it neither answers nor closes anything, or lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn hold(&self, held: bool) -> Result<()> {
        let process = self.process.as_ref().context("mosquitto does not run")?;
        signal(process, if held { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT })
    }

    /// A client of it.
    ///
    /// # Errors
    /// When it is not let in.
    pub async fn client(&self) -> Result<Client> {
        Client::connect(self.plain).await
    }
}

fn signal(process: &Child, signal: rustix::process::Signal) -> Result<()> {
    let id = process.id().and_then(|id| i32::try_from(id).ok());
    let id = id.and_then(rustix::process::Pid::from_raw).context("mosquitto ended by itself")?;
    Ok(rustix::process::kill_process(id, signal)?)
}

/// A client of a broker.
#[derive(Debug)]
pub struct Client {
    client: AsyncClient,
    /// What it listens to, also after the broker was away.
    filters: Arc<Mutex<Vec<String>>>,
    messages: mpsc::Receiver<Message>,
    task: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    async fn connect(port: u16) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut options = MqttOptions::new(name, Address::tcp("127.0.0.1", port));
        options.set_keep_alive(60).set_max_packet_size(Some(MOST_PACKET));
        let (client, mut connection) = AsyncClient::builder(options).capacity(64).build();
        match connection.poll().await {
            Ok(Event::Incoming(Incoming::ConnAck(_))) => {}
            other => bail!("the broker answers {other:?}"),
        }
        let (sender, messages) = mpsc::channel(100_000);
        let filters = Arc::new(Mutex::new(Vec::<String>::new()));
        // Comes back by itself when the broker does.
        let (again, wanted) = (client.clone(), Arc::clone(&filters));
        let task = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            loop {
                match connection.poll().await {
                    Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                        for filter in wanted.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                            // It was let listen before, and there are few of them.
                            let _ = again.try_subscribe(filter.clone(), QoS::AtMostOnce);
                        }
                    }
                    Ok(Event::Incoming(Incoming::Publish(publish))) => {
                        let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                        let payload = publish.payload.to_vec();
                        let message = Message { topic, payload, retained: publish.retain };
                        if sender.send(message).await.is_err() {
                            return;
                        }
                    }
                    Ok(_) => {}
                    Err(_) => {
                        pace.tick().await;
                    }
                }
            }
        });
        Ok(Self { client, filters, messages, task })
    }

    /// Publishes something, and waits until the broker took it.
    ///
    /// # Errors
    /// When it did not in time.
    pub async fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>, retain: bool) -> Result<()> {
        let options = PublishOptions::at_least_once().retain(retain);
        let notice = self.client.publish_tracked(topic, payload.into(), options).await?;
        let taken = tokio::time::timeout(PATIENCE, notice.wait_completion_async()).await;
        taken.with_context(|| format!("the broker did not take a message at {topic}"))?.context("refused")
    }

    /// Listens to all that fits a filter.
    ///
    /// # Errors
    /// When the broker does not let us.
    pub async fn subscribe(&self, filter: &str) -> Result<()> {
        let notice = self.client.subscribe_tracked(filter, QoS::AtMostOnce).await?;
        notice.wait_completion_async().await?;
        self.filters.lock().unwrap_or_else(PoisonError::into_inner).push(filter.to_owned());
        Ok(())
    }

    /// The first message from now on that `pick` picks something of.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn next<T>(&mut self, what: &str, pick: impl Fn(&Message) -> Option<T>) -> Result<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            let message = timeout_at(end, self.messages.recv()).await;
            let message =
                message.with_context(|| format!("waited for {what}"))?.context("the client ended")?;
            if let Some(picked) = pick(&message) {
                return Ok(picked);
            }
        }
    }

    /// The next message at a topic, as text.
    ///
    /// # Errors
    /// As [`Client::next`].
    pub async fn at(&mut self, topic: &str) -> Result<String> {
        let is_it = |message: &Message| {
            (message.topic == topic).then(|| String::from_utf8_lossy(&message.payload).into_owned())
        };
        self.next(topic, is_it).await
    }

    /// The next message, if it comes by then.
    pub async fn receive(&mut self) -> Option<Message> {
        self.messages.recv().await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_port_that_was_taken_meanwhile_is_left_for_another() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let first = taken.local_addr().unwrap().port();
        let mut ports = vec![first];
        let choose = || ports.pop().map_or_else(free_port, Ok);
        let folder = Folder::new().unwrap();
        let broker = Mosquitto::run(folder, "allow_anonymous true\n", None, choose).await.unwrap();
        assert_ne!(broker.port, first);
        broker.client().await.unwrap().publish("a", "b", false).await.unwrap();
    }
}
