//! A name server of a test's own, over datagrams and TCP, which answers as it is told.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use super::message::{Message, kind, query, rcode};
use super::name::Name;

/// An answer.
#[derive(Clone, Default)]
pub(super) struct Reply {
    code: u8,
    authoritative: bool,
    truncated: bool,
    answers: Vec<(Name, u16, Vec<u8>)>,
    authority: Vec<(Name, u16, Vec<u8>)>,
}

impl Reply {
    /// Of one that keeps the zone.
    pub(super) fn new() -> Self {
        Self { authoritative: true, ..Self::default() }
    }

    pub(super) fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    pub(super) fn none(zone: &str) -> Self {
        let mut reply = Self::new().code(rcode::NXDOMAIN);
        let data = [b"\0\0".as_slice(), &[1; 20]].concat();
        reply.authority.push((zone.parse().unwrap(), kind::SOA, data));
        reply
    }

    pub(super) fn truncated(mut self) -> Self {
        self.truncated = true;
        self
    }

    fn with(mut self, owner: &str, kind: u16, data: Vec<u8>) -> Self {
        self.answers.push((owner.parse().unwrap(), kind, data));
        self
    }

    pub(super) fn text(self, owner: &str, text: &str) -> Self {
        let length = u8::try_from(text.len()).unwrap();
        self.with(owner, kind::TXT, [&[length], text.as_bytes()].concat())
    }

    pub(super) fn alias(self, owner: &str, target: &str) -> Self {
        self.with(owner, kind::CNAME, target.parse::<Name>().unwrap().wire().to_vec())
    }

    pub(super) fn server(self, zone: &str, server: &str) -> Self {
        self.with(zone, kind::NS, server.parse::<Name>().unwrap().wire().to_vec())
    }

    pub(super) fn address(self, owner: &str, ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => self.with(owner, kind::A, ip.octets().to_vec()),
            IpAddr::V6(ip) => self.with(owner, kind::AAAA, ip.octets().to_vec()),
        }
    }

    fn bytes(&self, id: u16, name: &Name, kind: u16, whole: bool) -> Vec<u8> {
        let mut bytes = query(id, name, kind, false);
        let cut = self.truncated && !whole;
        bytes[2] = 0x80 | if self.authoritative { 4 } else { 0 } | if cut { 2 } else { 0 };
        bytes[3] = self.code;
        if cut {
            return bytes;
        }
        bytes[7] = u8::try_from(self.answers.len()).unwrap();
        bytes[9] = u8::try_from(self.authority.len()).unwrap();
        for (owner, kind, data) in self.answers.iter().chain(&self.authority) {
            bytes.extend(owner.wire());
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 0, 60]);
            bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend(data);
        }
        bytes
    }
}

/// A name server that runs until the test ends.
pub(super) struct FakeDns {
    pub(super) at: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl FakeDns {
    /// Answers each question with what this gives for its name, its type and how many were asked before.
    pub(super) async fn start(answer: impl Fn(&str, u16, usize) -> Reply + Send + Sync + 'static) -> Self {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let (at, asked) = (tcp.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = asked.clone();
        let answer = Arc::new(move |bytes: &[u8], whole: bool| {
            let read = Message::read(bytes).unwrap();
            let (question, before) = (&read.questions[0], count.fetch_add(1, Ordering::Relaxed));
            let reply = answer(&question.name.to_string(), question.kind, before);
            reply.bytes(read.id, &question.name, question.kind, whole)
        });
        let by_tcp = answer.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 1024];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                let answer = answer(&buffer[..length], false);
                // What a forger would send first: another number, another question, nonsense.
                let mut forged = answer.clone();
                forged[0] ^= 0xff;
                let mut other = answer.clone();
                other[13] ^= 1;
                for bytes in [forged, other, b"nonsense".to_vec(), answer] {
                    udp.send_to(&bytes, from).await.unwrap();
                }
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let mut bytes = vec![0; stream.read_u16().await.unwrap().into()];
                stream.read_exact(&mut bytes).await.unwrap();
                let answer = by_tcp(&bytes, true);
                stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        Self { at, asked }
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}
