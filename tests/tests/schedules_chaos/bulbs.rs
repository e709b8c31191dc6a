//! Bulbs that every node reaches by a network of its own, whatever happens to the one between the nodes, and what each
//! node sent them.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket as Socket},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use hearth_tests::emulator::{COLOR_BULB, Emulator};
use jiff::Timestamp;
use tokio::{net::UdpSocket, task::JoinSet};

/// The type of the message that sets a colour and brightness.
const SET_COLOR: u16 = 102;

/// A message that changed a bulb.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery {
    /// Which bulb, counted from 0.
    pub(crate) bulb: usize,
    /// Who sent it: the last number of its address.
    pub(crate) host: u8,
    /// When, in milliseconds since 1970.
    pub(crate) at: i64,
}

/// Emulated bulbs behind a socket that counts.
pub(crate) struct Bulbs {
    pub(crate) emulator: Emulator,
    log: Arc<Mutex<Vec<Delivery>>>,
    _task: JoinSet<()>,
}

impl Bulbs {
    /// So many bulbs, reached through that socket.
    pub(crate) async fn start(count: usize, front: Socket) -> Result<Self> {
        let emulator = Emulator::start(&vec![COLOR_BULB; count]).await?;
        front.set_nonblocking(true)?;
        let front = Arc::new(UdpSocket::from_std(front)?);
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut task = JoinSet::new();
        task.spawn(carry(front, emulator.address(), log.clone()));
        Ok(Self { emulator, log, _task: task })
    }

    /// What has been sent so far, oldest first.
    pub(crate) fn log(&self) -> Vec<Delivery> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn carry(front: Arc<UdpSocket>, bulbs: SocketAddr, log: Arc<Mutex<Vec<Delivery>>>) {
    let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; 2_048];
    while let Ok((length, client)) = front.recv_from(&mut buffer).await {
        let datagram = &buffer[..length];
        if let Some(delivery) = read(datagram, client.ip()) {
            log.lock().unwrap_or_else(PoisonError::into_inner).push(delivery);
        }
        let back = match backs.get(&client) {
            Some(back) => back.clone(),
            None => {
                let Ok(back) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await else { return };
                let back = Arc::new(back);
                backs.insert(client, back.clone());
                tasks.spawn(carry_back(back.clone(), front.clone(), client));
                back
            }
        };
        let _ = back.send_to(datagram, bulbs).await; // a datagram that cannot be sent is lost
    }
}

async fn carry_back(back: Arc<UdpSocket>, front: Arc<UdpSocket>, client: SocketAddr) {
    let mut buffer = vec![0; 2_048];
    while let Ok((length, _)) = back.recv_from(&mut buffer).await {
        let _ = front.send_to(&buffer[..length], client).await; // a datagram that cannot be sent is lost
    }
}

/// The header of LIFX: the target at 8, the type at 32; serials are counted up from d073d5000001.
fn read(datagram: &[u8], client: IpAddr) -> Option<Delivery> {
    let kind = u16::from_le_bytes(datagram.get(32..34)?.try_into().ok()?);
    let (number, IpAddr::V4(client)) = (*datagram.get(13)?, client) else { return None };
    let bulb = usize::from(number).checked_sub(1)?;
    let (host, at) = (client.octets()[3], Timestamp::now().as_millisecond());
    (kind == SET_COLOR).then_some(Delivery { bulb, host, at })
}
