//! Both ways to a peer: QUIC first, a WebSocket a moment later, and the first that opens is taken.

use std::{net::SocketAddr, pin::pin, time::Duration};

use mesh_proto::NodeId;
use tokio::time::timeout;

use super::{
    DialError, LinkEnd, QuicTransport, WebSocketTransport,
    dialer::{By, Dial},
};

/// Dials over QUIC and over TCP.
#[derive(Debug, Clone)]
pub struct Ways {
    /// The better one.
    pub quic: QuicTransport,
    /// For networks that drop UDP.
    pub websocket: WebSocketTransport,
}

impl Dial for Ways {
    async fn resolve(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
        self.quic.resolve(name, port).await
    }

    async fn dial(
        &self,
        expected: Option<NodeId>,
        addresses: &[SocketAddr],
        by: By,
    ) -> Result<(NodeId, impl Future<Output = ()> + Send), DialError> {
        let quic = self.quic.dial(expected, addresses);
        let opened = match by {
            By::Quic => quic.await,
            By::Either { head_start } => {
                race(head_start, quic, self.websocket.dial(expected, addresses)).await
            }
        };
        opened.map(|(node, end): (NodeId, LinkEnd)| (node, end.ended()))
    }
}

/// The first that opens; the second is begun after the head start, or when the first has failed.
///
/// # Errors
/// Both errors, once both have failed.
pub(crate) async fn race<T>(
    head_start: Duration,
    first: impl Future<Output = Result<T, DialError>>,
    second: impl Future<Output = Result<T, DialError>>,
) -> Result<T, DialError> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let failed = match timeout(head_start, first.as_mut()).await {
        Ok(Ok(opened)) => return Ok(opened),
        Ok(Err(error)) => Some(error),
        Err(_) => None,
    };
    let (failed, other) = match failed {
        Some(error) => (error, second.await),
        None => tokio::select! {
            outcome = first.as_mut() => match outcome {
                Ok(opened) => return Ok(opened),
                Err(error) => (error, second.await),
            },
            outcome = second.as_mut() => match outcome {
                Ok(opened) => return Ok(opened),
                Err(error) => (error, first.await),
            },
        },
    };
    other.map_err(|error| both(failed, error))
}

fn both(one: DialError, other: DialError) -> DialError {
    match (one, other) {
        (DialError::Failed(mut all), DialError::Failed(more)) => {
            all.extend(more);
            // The address first, then QUIC before TCP.
            all.sort_by_key(|(address, error)| (*address, error.is_over_tcp()));
            DialError::Failed(all)
        }
        (one, _) => one,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::transport::{AttemptError, dialer::HEAD_START, testing::loopback};

    async fn after<T>(ms: u64, outcome: Result<T, DialError>) -> Result<T, DialError> {
        sleep(Duration::from_millis(ms)).await;
        outcome
    }

    fn failed(is_tcp: bool) -> DialError {
        let error = AttemptError::Refused("no".into());
        let error = if is_tcp { AttemptError::OverTcp(Box::new(error)) } else { error };
        DialError::Failed(vec![(loopback(), error)])
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_that_opens_is_taken_and_the_second_begins_later() {
        for (quic, tcp, winner, at) in [
            // QUIC answers: TCP is not even begun.
            (after(200, Ok("quic")), after(0, Ok("tcp")), Some("quic"), 200),
            // Both are under way.
            (after(400, Ok("quic")), after(200, Ok("tcp")), Some("quic"), 400),
            (after(600, Ok("quic")), after(200, Ok("tcp")), Some("tcp"), 500),
            // QUIC is dropped in silence, or refused at once.
            (after(5_000, Err(failed(false))), after(20, Ok("tcp")), Some("tcp"), 320),
            (after(10, Err(failed(false))), after(20, Ok("tcp")), Some("tcp"), 30),
            // One of them fails first.
            (after(600, Ok("quic")), after(20, Err(failed(true))), Some("quic"), 600),
            (after(310, Err(failed(false))), after(30, Ok("tcp")), Some("tcp"), 330),
            (after(5_000, Err(failed(false))), after(20, Err(failed(true))), None, 5_000),
        ] {
            let start = Instant::now();
            let outcome = race(HEAD_START, quic, tcp).await;
            let took = start.elapsed().abs_diff(Duration::from_millis(at));
            assert!(
                took < Duration::from_millis(5),
                "{winner:?} after {:?} instead of {at} ms",
                start.elapsed()
            );
            match (outcome, winner) {
                (Ok(opened), Some(winner)) => assert_eq!(opened, winner),
                (Err(DialError::Failed(all)), None) => {
                    let words: Vec<String> = all.iter().map(|(_, error)| error.to_string()).collect();
                    assert_eq!(words, ["refused (no)", "over TCP refused (no)"]);
                }
                (outcome, _) => panic!("{outcome:?} instead of {winner:?}"),
            }
        }
    }
}
