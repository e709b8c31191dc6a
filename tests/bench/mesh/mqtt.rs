//! A peer: two mosquittos with a bridge from the first to the second, MQTT 3.1.1 at QoS 0.
//!
//! As much of the protocol as that takes (OASIS standard "MQTT Version 3.1.1"); every packet here is
//! shorter than 128 bytes, so its length takes one byte.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use hearth_tests::daemon::{Folder, PATIENCE, free_port, wait_until};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};

const TOPIC: &str = "bench/lamp";
const PUBLISH: u8 = 0x30;

/// Two brokers with a client each.
pub(crate) struct Brokers {
    writer: Mqtt,
    reader: Mqtt,
    _processes: [Child; 2],
    _folder: Folder,
}

impl Brokers {
    /// Starts them; none when mosquitto is not installed.
    pub(crate) async fn start(program: &Path) -> Result<Option<Self>> {
        if !program.exists() {
            return Ok(None);
        }
        let folder = Folder::new()?;
        let (near_port, far_port) = (free_port()?, free_port()?);
        let common = "allow_anonymous true\nset_tcp_nodelay true\npersistence false\nlog_dest none\n";
        let far = format!("listener {far_port} 127.0.0.1\n{common}");
        let bridge = format!(
            "connection bench\naddress 127.0.0.1:{far_port}\ntopic bench/# out 0\nnotifications false\n"
        );
        let near = format!("listener {near_port} 127.0.0.1\n{common}{bridge}");
        let far = broker(program, &folder, "far", &far)?;
        let mut reader = Mqtt::connect(far_port, "reader").await?;
        reader.subscribe().await?;
        let near = broker(program, &folder, "near", &near)?;
        let writer = Mqtt::connect(near_port, "writer").await?;
        let mut brokers = Self { writer, reader, _processes: [near, far], _folder: folder };
        brokers.bridged().await?;
        Ok(Some(brokers))
    }

    /// Waits until the bridge carries something, and until nothing more of it comes.
    async fn bridged(&mut self) -> Result<()> {
        let mut sent = 0;
        let mut heard = 0;
        while heard == 0 || heard < sent {
            if heard == 0 {
                ensure!(sent < 600, "the bridge carries nothing");
                self.writer.publish("hello").await?;
                sent += 1;
            }
            // Begun is read to its end: only the wait for a packet may be given up.
            match timeout(Duration::from_millis(100), self.reader.0.readable()).await {
                Ok(_) => heard += usize::from(self.reader.packet().await?.0 == PUBLISH),
                // What was sent before the bridge stood is lost.
                Err(_) if heard > 0 => return Ok(()),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// One change from end to end.
    pub(crate) async fn round(&mut self, payload: String) -> Result<Duration> {
        let begun = Instant::now();
        self.writer.publish(&payload).await?;
        let (kind, body) = self.reader.packet().await?;
        let took = begun.elapsed();
        ensure!(
            kind == PUBLISH && body.ends_with(payload.as_bytes()),
            "the brokers made {body:?} of {payload:?}"
        );
        Ok(took)
    }
}

fn broker(program: &Path, folder: &Folder, name: &str, config: &str) -> Result<Child> {
    let file = folder.join(name);
    std::fs::write(&file, config)?;
    let mut command = Command::new(program);
    command.arg("-c").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.kill_on_drop(true).spawn().with_context(|| format!("cannot start {}", program.display()))
}

/// A client.
struct Mqtt(TcpStream);

impl Mqtt {
    async fn connect(port: u16, name: &str) -> Result<Self> {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = None;
        wait_until("the broker listens", PATIENCE, async || {
            stream = Some(TcpStream::connect(at).await?);
            Ok(true)
        })
        .await?;
        let mut client = Self(stream.context("no connection")?);
        client.0.set_nodelay(true)?;
        // Protocol level 4, a clean session, no keep-alive.
        client.send(0x10, &[text("MQTT")?, vec![4, 2, 0, 0], text(name)?].concat()).await?;
        let (kind, body) = client.packet().await?;
        ensure!(kind == 0x20 && body.get(1) == Some(&0), "the broker answers {kind:#x} {body:?}");
        Ok(client)
    }

    async fn subscribe(&mut self) -> Result<()> {
        self.send(0x82, &[vec![0, 1], text("bench/#")?, vec![0]].concat()).await?;
        let (kind, body) = self.packet().await?;
        ensure!(kind == 0x90 && body == [0, 1, 0], "the broker answers {kind:#x} {body:?}");
        Ok(())
    }

    async fn publish(&mut self, payload: &str) -> Result<()> {
        self.send(PUBLISH, &[text(TOPIC)?, payload.as_bytes().to_vec()].concat()).await
    }

    async fn send(&mut self, kind: u8, body: &[u8]) -> Result<()> {
        let length = u8::try_from(body.len()).ok().filter(|length| *length < 128).context("a long packet")?;
        Ok(self.0.write_all(&[&[kind, length], body].concat()).await?)
    }

    async fn packet(&mut self) -> Result<(u8, Vec<u8>)> {
        let (kind, length) = (self.0.read_u8().await?, self.0.read_u8().await?);
        ensure!(length < 128, "a long packet");
        let mut body = vec![0; usize::from(length)];
        self.0.read_exact(&mut body).await?;
        Ok((kind, body))
    }
}

fn text(text: &str) -> Result<Vec<u8>> {
    Ok([&u16::try_from(text.len())?.to_be_bytes(), text.as_bytes()].concat())
}
