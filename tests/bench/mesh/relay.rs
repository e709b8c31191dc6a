//! The floor: two processes that only pass bytes on, from TCP over QUIC to TCP, with the
//! cryptography and the limits of Hearth's links.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use node::tls::{NodeIdentity, identity::ALPN_MESH, identity::SERVER_NAME};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

const NEAR: &str = "relay-near";
const FAR: &str = "relay-far";
const LOCALHOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Whether the first argument makes this process a relay.
pub(crate) fn is_role(argument: &str) -> bool {
    [NEAR, FAR].contains(&argument)
}

/// Is a relay until its clients are gone.
pub(crate) fn run(role: &str, arguments: &[String]) -> Result<()> {
    // One thread each: nothing is faster for bytes that are only passed on.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        match role {
            FAR => far().await,
            _ => near(arguments.get(1).context("no address")?.parse()?).await,
        }
    })
}

/// Takes one TCP client and dials the far relay.
async fn near(far: SocketAddr) -> Result<()> {
    let identity = NodeIdentity::from_seed(&[1; 32])?;
    let endpoint = quinn::Endpoint::client(LOCALHOST)?;
    let dial = endpoint.connect_with(identity.client_quic(ALPN_MESH)?, far, SERVER_NAME)?;
    let (mut out, _back) = dial.await?.open_bi().await?;
    // The other side sees a stream with its first bytes.
    out.write_all(b"\n").await?;
    let listener = TcpListener::bind(LOCALHOST).await?;
    say(&listener.local_addr()?.to_string())?;
    let (mut client, _) = listener.accept().await?;
    let mut bytes = [0; 4_096];
    loop {
        match client.read(&mut bytes).await? {
            0 => return Ok(()),
            length => out.write_all(bytes.get(..length).unwrap_or_default()).await?,
        }
    }
}

/// Takes the near relay, and one TCP client that hears what it says.
async fn far() -> Result<()> {
    let identity = NodeIdentity::from_seed(&[2; 32])?;
    let endpoint = quinn::Endpoint::server(identity.server_quic()?, LOCALHOST)?;
    let listener = TcpListener::bind(LOCALHOST).await?;
    say(&format!("{} {}", endpoint.local_addr()?, listener.local_addr()?))?;
    let (mut client, _) = listener.accept().await?;
    client.set_nodelay(true)?;
    let connection = endpoint.accept().await.context("the endpoint is closed")?.await?;
    let (_back, mut source) = connection.accept_bi().await?;
    source.read_exact(&mut [0]).await?;
    let mut bytes = [0; 4_096];
    while let Some(length) = source.read(&mut bytes).await? {
        client.write_all(bytes.get(..length).unwrap_or_default()).await?;
    }
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Both relays with a client on either end.
pub(crate) struct Relays {
    writer: TcpStream,
    reader: BufReader<TcpStream>,
    _processes: [Child; 2],
}

impl Relays {
    pub(crate) async fn start() -> Result<Self> {
        let (far, said) = spawn(&[FAR]).await?;
        let Some((quic, tcp)) = said.split_once(' ') else { bail!("the far relay says {said:?}") };
        let reader = TcpStream::connect(tcp).await?;
        let (near, at) = spawn(&[NEAR, quic]).await?;
        let writer = TcpStream::connect(at).await?;
        writer.set_nodelay(true)?;
        Ok(Self { writer, reader: BufReader::new(reader), _processes: [near, far] })
    }

    /// One change from end to end.
    pub(crate) async fn round(&mut self, payload: String) -> Result<Duration> {
        let begun = Instant::now();
        self.writer.write_all(format!("{payload}\n").as_bytes()).await?;
        let mut line = String::new();
        self.reader.read_line(&mut line).await?;
        let took = begun.elapsed();
        anyhow::ensure!(line.trim_end() == payload, "the relays made {line:?} of {payload:?}");
        Ok(took)
    }
}

/// Starts this program as a relay; answers with its first line.
async fn spawn(arguments: &[&str]) -> Result<(Child, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line).await?;
    Ok((child, line.trim_end().to_owned()))
}
