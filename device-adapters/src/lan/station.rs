//! The task of one board: it asks what [`Board`] wants to know, and never lets a request hold up commands or readings.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::adapter::{Directive, Reading};
use crate::websocket::{Feed, FeedEvent};

use super::board::{Action, Board};
use super::{Address, Protocol};

/// While more readings than this wait for a slow node, nothing new is taken in.
const MOST_BACKLOG: usize = 256;
/// How soon a board that was held back is heard again.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(100);

/// What a station is told.
#[derive(Debug)]
pub(super) enum Order {
    /// By the node.
    Directive(Directive),
    /// The board was seen at an address.
    Seen(Address),
}

/// The two ends of a station.
pub(super) struct Ends {
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) readings: mpsc::Sender<Reading>,
    /// Told when another board has the address of this one.
    pub(super) sought: Arc<Notify>,
}

/// What ended a wait.
enum Woken<T> {
    By(T),
    ByOrder,
    /// The adapter stops.
    Never,
}

/// Runs until the board is gone, or nobody gives orders any more.
pub(super) async fn serve<P: Protocol>(mut protocol: P, mut board: Board, mut ends: Ends) {
    let mut feed: Option<Feed> = None;
    while !board.is_gone(Instant::now()) {
        if board.is_sought() {
            ends.sought.notify_one();
        }
        if let Some(to) = board.moves(Instant::now()) {
            feed = None;
            protocol.move_to(to);
        }
        if !board.listens() {
            feed = None;
            board.tells(Instant::now(), false);
        } else if feed.is_none() && board.place().is_proven() {
            feed = Some(protocol.feed());
        }
        let (at, action) = board.next(protocol.ready());
        // A board that tells more than the node takes is held back.
        let has_room = board.backlog() < MOST_BACKLOG;
        let at = if has_room { at } else { at.min(Instant::now() + LOOK_AGAIN) };
        if at > Instant::now() {
            let next = async {
                tokio::select! {
                    event = told(&mut feed), if has_room => Some(event),
                    () = sleep_until(at) => None,
                }
            };
            match ends.until(&mut board, next, true).await {
                Woken::By(Some(event)) => take(&mut protocol, &mut board, event),
                Woken::By(None) | Woken::ByOrder => {}
                Woken::Never => break,
            }
        } else if !ask(&mut protocol, &mut board, &mut ends, action).await {
            break;
        }
    }
    board.shut_down();
    while let Some(reading) = board.poll_reading() {
        if ends.readings.try_send(reading).is_err() {
            return; // nobody may be reading any more
        }
    }
}

/// Asks one thing; false when the adapter stops.
async fn ask<P: Protocol>(protocol: &mut P, board: &mut Board, ends: &mut Ends, action: Action) -> bool {
    board.asking(&action);
    let asked_at = Instant::now();
    match action {
        Action::Identify => {
            let Woken::By(answer) = ends.until(board, protocol.identify(), false).await else { return false };
            board.identified(Instant::now(), answer);
        }
        Action::Describe => {
            let Woken::By(answer) = ends.until(board, protocol.describe(), false).await else { return false };
            board.described(Instant::now(), answer);
        }
        Action::Read => {
            let Woken::By(answer) = ends.until(board, protocol.read(), false).await else { return false };
            board.read(Instant::now(), asked_at, answer);
        }
        Action::Tell(device, command, change) => {
            let telling = protocol.change(&device, &change);
            let Woken::By(answer) = ends.until(board, telling, false).await else { return false };
            board.changed(Instant::now(), &device, command, answer);
        }
    }
    true
}

fn take(protocol: &mut impl Protocol, board: &mut Board, event: FeedEvent) {
    let now = Instant::now();
    match event {
        FeedEvent::Open => board.tells(now, true),
        FeedEvent::Text(text) => {
            let told = protocol.told(&text);
            board.told(now, told);
        }
        FeedEvent::Closed(why) => {
            tracing::debug!(place = %board.place(), why, "the device tells nothing by itself: it is polled");
            board.tells(now, false);
        }
    }
}

async fn told(feed: &mut Option<Feed>) -> FeedEvent {
    match feed {
        Some(feed) => feed.next().await,
        None => std::future::pending().await,
    }
}

impl Ends {
    /// Waits for something, and meanwhile passes readings on, takes orders and ends commands in time.
    async fn until<T>(&mut self, board: &mut Board, work: impl Future<Output = T>, wakes: bool) -> Woken<T> {
        let mut work = pin!(work);
        let Self { orders, readings, .. } = self;
        loop {
            board.expire(Instant::now());
            let deadline = board.deadline();
            let has_deadline = deadline.is_some();
            let free = board.backlog() < MOST_BACKLOG;
            tokio::select! {
                biased;
                permit = readings.reserve(), if board.backlog() > 0 => match permit {
                    Ok(permit) => if let Some(reading) = board.poll_reading() { permit.send(reading) },
                    Err(_) => return Woken::Never,
                },
                order = orders.recv(), if free => match order {
                    Some(order) => {
                        obey(board, order);
                        if wakes {
                            return Woken::ByOrder;
                        }
                    }
                    None => return Woken::Never,
                },
                done = &mut work => return Woken::By(done),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if has_deadline => {
                    if wakes {
                        board.expire(Instant::now());
                        return Woken::ByOrder;
                    }
                }
            }
        }
    }
}

fn obey(board: &mut Board, order: Order) {
    match order {
        Order::Directive(directive) => board.directive(Instant::now(), directive),
        Order::Seen(at) => board.seen(Instant::now(), at),
    }
}
