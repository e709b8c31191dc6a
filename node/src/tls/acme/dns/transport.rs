//! Questions to one name server and its answers: datagrams first, TCP for what does not fit (RFC 7766).

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

use super::message::{Message, MessageError, query};
use super::name::Name;

/// How long an answer to a question may take: over the Internet and by a resolver that must ask others first.
const WITHIN: Duration = Duration::from_secs(5);
/// When a question is asked again, for datagrams get lost.
const AGAIN: Duration = Duration::from_millis(1_500);
/// The largest datagram that is taken, in bytes: we ask for no more than 512 (RFC 1035, section 4.2.1).
const MAX_DATAGRAM: usize = 4096;

/// A name server: what it is called, and where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) addresses: Vec<SocketAddr>,
}

impl Server {
    /// One without a name.
    pub(super) fn at(address: SocketAddr) -> Self {
        Self { name: address.to_string(), addresses: vec![address] }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// It has no address.
    #[error("it has no address")]
    Nowhere,
    /// The system said so.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// What came is no message of DNS.
    #[error("it broke the protocol: {0}")]
    Message(#[from] MessageError),
    /// It did not answer the question.
    #[error("it answered {0}")]
    Code(&'static str),
    /// What came is no answer to what was asked.
    #[error("it answered another question")]
    Foreign,
}

/// Asks one question at the first address that answers.
///
/// # Errors
/// [`AskError`] of the last address.
pub(super) async fn ask(
    addresses: &[SocketAddr],
    name: &Name,
    kind: u16,
    recursion: bool,
) -> Result<Message, AskError> {
    let mut last = AskError::Nowhere;
    for address in addresses {
        match ask_at(*address, name, kind, recursion).await {
            Ok(answer) => return Ok(answer),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn ask_at(server: SocketAddr, name: &Name, kind: u16, recursion: bool) -> Result<Message, AskError> {
    let id = new_id()?;
    let question = query(id, name, kind, recursion);
    let end = Instant::now() + WITHIN;
    let answer = timeout_at(end, by_datagram(server, &question, id, name, kind)).await;
    let answer = answer.map_err(|_| AskError::Timeout(WITHIN))??;
    if !answer.is_truncated() {
        return Ok(answer);
    }
    let bytes = exchange(&[server], &question, WITHIN).await?;
    let answer = Message::read(&bytes)?;
    if fits(&answer, id, name, kind) { Ok(answer) } else { Err(AskError::Foreign) }
}

/// Asks until an answer comes. What fits no question of ours is dropped: anybody may send it.
async fn by_datagram(
    server: SocketAddr,
    question: &[u8],
    id: u16,
    name: &Name,
    kind: u16,
) -> Result<Message, AskError> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A port that the system draws anew for each question, which a forger would have to guess (RFC 5452).
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let mut buffer = [0; MAX_DATAGRAM];
    loop {
        socket.send(question).await?;
        let again = Instant::now() + AGAIN;
        while let Ok(received) = timeout_at(again, socket.recv(&mut buffer)).await {
            let answer = buffer.get(..received?).map(Message::read);
            if let Some(Ok(answer)) = answer.filter(|a| a.as_ref().is_ok_and(|a| fits(a, id, name, kind))) {
                return Ok(answer);
            }
        }
    }
}

/// Whether it is an answer to that question.
fn fits(answer: &Message, id: u16, name: &Name, kind: u16) -> bool {
    let is_it = |question: &super::message::Question| question.name == *name && question.kind == kind;
    answer.is_answer() && answer.id == id && answer.questions.iter().any(is_it)
}

/// Sends one message over TCP to the first address that takes it, and gives the one that comes back.
///
/// # Errors
/// [`AskError`]; whether the server got the message is then unknown.
pub(super) async fn exchange(
    addresses: &[SocketAddr],
    message: &[u8],
    within: Duration,
) -> Result<Vec<u8>, AskError> {
    if addresses.is_empty() {
        return Err(AskError::Nowhere);
    }
    let end = Instant::now() + within;
    timeout_at(end, exchange_over(addresses, message)).await.map_err(|_| AskError::Timeout(within))?
}

async fn exchange_over(addresses: &[SocketAddr], message: &[u8]) -> Result<Vec<u8>, AskError> {
    let mut stream = TcpStream::connect(addresses).await?;
    let length = u16::try_from(message.len()).map_err(|_| AskError::Message(MessageError::Short))?;
    // In one piece: some servers want the length and the message in one segment (RFC 7766, section 8).
    let framed = [&length.to_be_bytes(), message].concat();
    stream.write_all(&framed).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// A number for a question that nobody can guess.
pub(super) fn new_id() -> Result<u16, AskError> {
    let bytes = crate::auth::random::<2>();
    bytes.map(u16::from_be_bytes).ok_or_else(|| io::Error::other("the system has no random bytes").into())
}
