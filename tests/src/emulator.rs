//! The real peer of the LIFX adapter: `lifx-emulator`, to which `peers/lifx_with_relays.py` adds the relays of switches,
//! and a faulty network in front of it.
//!
//! Each [`Emulator`] is a process of its own on loopback with its own free ports, so any number
//! may run at once. It is stopped when dropped. Faults that a bulb has are set by the emulator's
//! HTTP API; faults of the network, and a bulb that acknowledges and ignores or answers wrongly, by a [`Link`].

pub mod wrong;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket as StdUdpSocket};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UdpSocket};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::python::python;

/// The product number of a full colour bulb, 1 500 to 9 000 K (LIFX A19).
pub const COLOR_BULB: u16 = 163;
/// The product number of a bulb of whites, 1 500 to 9 000 K (LIFX White to Warm 800).
pub const WHITE_BULB: u16 = 131;
/// The product number of a strip that knows the messages that hold all zones (LIFX Beam, 80 zones).
pub const STRIP: u16 = 38;
/// The product number of a strip that knows only the older messages (LIFX Z, 16 zones).
pub const OLD_STRIP: u16 = 31;
/// The product number of a strip whose zones do not fit into one message (LIFX Outdoor Neon, 60 zones or more).
pub const LONG_STRIP: u16 = 161;
/// The product number of a matrix (LIFX Candle, 5 x 6 zones).
pub const CANDLE: u16 = 57;
/// The product number of a chain of matrices (LIFX Tile, five tiles of 8 x 8 zones).
pub const TILE: u16 = 55;
/// The product number of a matrix whose zones do not fit into one message (LIFX Ceiling, 16 x 8 zones).
pub const CEILING: u16 = 201;

/// The product number of a bulb with an infrared emitter (LIFX A19 Night Vision).
pub const NIGHT_VISION: u16 = 109;
/// The product number of a bulb that cleans (LIFX Clean).
pub const CLEAN: u16 = 90;
/// The product number of a switch of four relays (LIFX Switch).
pub const SWITCH: u16 = 70;

/// The port of LIFX bulbs.
const LIFX_PORT: u16 = 56_700;
/// How long the emulator may take to start, on a busy machine.
const START_WITHIN: Duration = Duration::from_secs(150);
/// The message types that Hearth sends.
const REQUESTS: [u16; 27] = [
    2, 14, 23, 32, 101, 102, 117, 119, 120, 122, 142, 143, 148, 501, 502, 507, 508, 510, 511, 701, 707, 715,
    716, 718, 719, 816, 817,
];
/// Those of them that change something.
const SETS: [u16; 12] = [102, 117, 119, 122, 143, 501, 508, 510, 715, 716, 719, 817];

/// A running emulator.
#[derive(Debug)]
pub struct Emulator {
    /// Killed when dropped.
    _process: Child,
    address: SocketAddr,
    api: SocketAddr,
}

impl Emulator {
    /// Starts an emulator of the given products. Their serial numbers are `serials` counted up
    /// from 1 behind the prefix d073d5: the first is `d073d5000001`.
    ///
    /// # Errors
    /// When it is not installed (then with what installs it) or does not start.
    pub async fn start(products: &[u16]) -> Result<Self> {
        let mut last = anyhow!("not tried");
        for _ in 0..3 {
            // A port that is free now may be taken a moment later: then the emulator ends and
            // another port is tried.
            match Self::start_on(None, free_port()?, products).await {
                Ok(emulator) => return Ok(emulator),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The same on the loopback of a network namespace, by its full name, where only who is there too reaches
    /// the bulbs; nor is the HTTP API reached from elsewhere.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub async fn start_in(namespace: &str, products: &[u16]) -> Result<Self> {
        Self::start_on(Some(namespace), LIFX_PORT, products).await
    }

    /// Where the bulbs listen.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets the emulator ignore each message with this probability, 0 to 1; answers always arrive.
    ///
    /// # Errors
    /// When the HTTP API does not answer as expected.
    pub async fn ignore_requests(&self, rate: f64) -> Result<()> {
        let rates: serde_json::Map<String, Value> =
            REQUESTS.iter().map(|kind| (kind.to_string(), json!(rate))).collect();
        self.api("PUT", "/api/scenarios/global", &json!({ "drop_packets": rates })).await?;
        Ok(())
    }

    /// Every bulb answers again.
    ///
    /// # Errors
    /// When the HTTP API does not answer as expected.
    pub async fn answer_all(&self) -> Result<()> {
        self.api("DELETE", "/api/scenarios/global", &Value::Null).await?;
        Ok(())
    }

    /// What the bulb really shows: `power_level`, `color` (`hue`, `saturation`, `brightness`, `kelvin`), `label` and more.
    ///
    /// # Errors
    /// When the HTTP API does not answer as expected.
    pub async fn device(&self, serial: &str) -> Result<Value> {
        self.api("GET", &format!("/api/devices/{serial}"), &Value::Null).await
    }

    /// Changes what the bulb shows, as another app would: `power_level`, `color`.
    ///
    /// # Errors
    /// When the HTTP API does not answer as expected.
    pub async fn set(&self, serial: &str, state: &Value) -> Result<()> {
        self.api("PATCH", &format!("/api/devices/{serial}/state"), state).await?;
        Ok(())
    }

    /// Takes a bulb away for good.
    ///
    /// # Errors
    /// When the HTTP API does not answer as expected.
    pub async fn remove(&self, serial: &str) -> Result<()> {
        self.api("DELETE", &format!("/api/devices/{serial}"), &Value::Null).await?;
        Ok(())
    }

    async fn start_on(namespace: Option<&str>, port: u16, products: &[u16]) -> Result<Self> {
        let python = python()?;
        let mut command = match namespace {
            Some(name) => {
                let mut inside = Command::new("ip");
                inside.args(["netns", "exec", name]).arg(python.as_std().get_program());
                inside
            }
            None => python,
        };
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/lifx_with_relays.py"));
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--api", "--api-port", "0", "--no-api-activity"]);
        for product in products {
            command.args(["--product", &product.to_string()]);
        }
        // Away from the repository, where it would look for a config file.
        command.current_dir(std::env::temp_dir());
        command.env("PYTHONUNBUFFERED", "1").stdin(Stdio::null()).stdout(Stdio::null());
        let mut process =
            command.stderr(Stdio::piped()).kill_on_drop(true).spawn().context("cannot start the emulator")?;
        let stderr = process.stderr.take().context("the emulator has no error output")?;
        let mut lines = BufReader::new(stderr).lines();
        let mut said = String::new();
        let api = timeout(START_WITHIN, async {
            while let Some(line) = lines.next_line().await? {
                let address = line.split("Uvicorn running on http://").nth(1);
                if let Some(address) = address.and_then(|rest| rest.split_whitespace().next()) {
                    return address.parse().context("the emulator's API address");
                }
                said.push_str(&line);
                said.push('\n');
            }
            bail!("the emulator ended at its start")
        });
        let api = api.await.unwrap_or_else(|_| bail!("the emulator did not start within {START_WITHIN:?}"));
        let api = api.with_context(|| format!("it said:\n{said}"))?;
        // It logs every message; what nobody reads would block it in the end.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { _process: process, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), api })
    }

    /// One request of the HTTP API; `Null` is sent as no body.
    async fn api(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.api,
            body.len()
        );
        let exchange = async {
            let mut stream = TcpStream::connect(self.api).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer =
            timeout(Duration::from_secs(20), exchange).await.context("the emulator's API hangs")??;
        let (head, content) = answer.split_once("\r\n\r\n").context("the emulator's API sent no answer")?;
        let status = head.split_whitespace().nth(1).unwrap_or_default();
        ensure!(status.starts_with('2'), "{method} {path} was answered with {answer}");
        Ok(if content.is_empty() { Value::Null } else { serde_json::from_str(content)? })
    }
}

fn free_port() -> Result<u16> {
    Ok(StdUdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// What a [`Link`] does to what it carries.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Fault {
    /// The probability that a datagram to the bulb is lost, 0 to 1.
    pub lose_requests: f64,
    /// The probability that a datagram from the bulb is lost, 0 to 1.
    pub lose_answers: f64,
    /// Turns every Set into a question that asks for an acknowledgement: the bulb acknowledges
    /// and nothing changes.
    pub ignore_sets: bool,
    /// What the bulb answers is held back, and comes when this ends.
    pub hold_answers: bool,
    /// The bulb answers wrongly, in the way of that number of [`wrong`].
    pub wrong_answers: Option<usize>,
}

/// A piece of network in front of a bulb: configure its address instead of the bulb's.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    asked: Arc<Mutex<Vec<(Instant, u16)>>>,
    _tasks: JoinSet<()>,
}

impl Link {
    /// Carries datagrams to and from `bulb`. The same seed loses the same datagrams of a sequence.
    ///
    /// # Errors
    /// When no socket can be opened.
    pub async fn to(bulb: SocketAddr, seed: u64) -> Result<Self> {
        let front = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let address = front.local_addr()?;
        let (fault, faults) = watch::channel(Fault::default());
        let mut tasks = JoinSet::new();
        let asked = Arc::new(Mutex::new(Vec::new()));
        tasks.spawn(carry(front, bulb, faults, seed, asked.clone()));
        Ok(Self { address, fault, asked, _tasks: tasks })
    }

    /// What to configure as the bulb's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// When each datagram to the bulb came, lost or not, oldest first.
    #[must_use]
    pub fn asked(&self) -> Vec<Instant> {
        self.log().into_iter().map(|(at, _)| at).collect()
    }

    /// The same, with the type of each message; zero of what is none.
    #[must_use]
    pub fn log(&self) -> Vec<(Instant, u16)> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Faults from now on.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

async fn carry(
    front: Arc<UdpSocket>,
    bulb: SocketAddr,
    faults: watch::Receiver<Fault>,
    seed: u64,
    asked: Arc<Mutex<Vec<(Instant, u16)>>>,
) {
    let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut chance = Chance(seed | 1);
    let mut buffer = vec![0; 2_048];
    while let Ok((length, client)) = front.recv_from(&mut buffer).await {
        let fault = *faults.borrow();
        let kind = kind(buffer.get(..length).unwrap_or_default()).unwrap_or_default();
        asked.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), kind));
        if chance.strikes(fault.lose_requests) {
            continue;
        }
        let mut datagram = buffer.iter().copied().take(length).collect::<Vec<u8>>();
        if fault.ignore_sets {
            defuse(&mut datagram);
        }
        let back = match backs.entry(client) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(new) => {
                let Ok(back) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await else { return };
                let back = new.insert(Arc::new(back)).clone();
                tasks.spawn(carry_back(back.clone(), front.clone(), client, faults.clone(), seed ^ 0x5555));
                back
            }
        };
        let _ = back.send_to(&datagram, bulb).await; // a datagram that cannot be sent is lost
    }
}

async fn carry_back(
    back: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    client: SocketAddr,
    mut faults: watch::Receiver<Fault>,
    seed: u64,
) {
    let mut chance = Chance(seed | 1);
    let mut buffer = vec![0; 2_048];
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        let fault = *faults.borrow_and_update();
        if !fault.hold_answers {
            for answer in held.drain(..) {
                let _ = front.send_to(&answer, client).await; // a datagram that cannot be sent is lost
            }
        }
        let length = tokio::select! {
            received = back.recv_from(&mut buffer) => match received {
                Ok((length, _)) => length,
                Err(_) => return,
            },
            changed = faults.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        if chance.strikes(fault.lose_answers) {
            continue;
        }
        let answer = buffer.get(..length).unwrap_or_default();
        let answers =
            fault.wrong_answers.map_or_else(|| vec![answer.to_vec()], |way| wrong::answers(way, answer));
        held.extend(answers);
    }
}

/// The type of a message.
fn kind(datagram: &[u8]) -> Option<u16> {
    datagram.get(32..34).and_then(|kind| kind.try_into().ok()).map(u16::from_le_bytes)
}

/// Makes a GetPower (20, without a body) of each message that changes something.
fn defuse(datagram: &mut Vec<u8>) {
    if kind(datagram).is_some_and(|kind| SETS.contains(&kind)) {
        datagram.truncate(36);
        for (at, value) in [(0, 36), (1, 0), (32, 20), (33, 0)] {
            if let Some(byte) = datagram.get_mut(at) {
                *byte = value;
            }
        }
    }
}

/// Chance that is the same in every run of the same seed.
struct Chance(u64);

impl Chance {
    fn strikes(&mut self, probability: f64) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let thousandth = u32::try_from(self.0 >> 33).map_or(0, |high| high % 1_000);
        f64::from(thousandth) < probability * 1_000.0
    }
}
