//! What an adapter is checked against.

use std::future::Future;

use tokio::time::Instant;

use crate::adapter::Hint;
use crate::model::{Change, DeviceId};

/// Whether a peer is able to ignore commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignores {
    /// It does so from now on.
    Commands,
    /// It is not, and why. Then nothing shows here whether the adapter confirms what was never done.
    Nothing(&'static str),
}

/// A device, an emulator, or a fake that speaks the public protocol.
pub trait Peer: Send {
    /// What announces the device, for an adapter that is given hints.
    fn hints(&self) -> Vec<Hint> {
        Vec::new()
    }

    /// Which of the devices that the adapter finds is the one to check.
    fn device(&self) -> DeviceId;

    /// Changes that the device is able to carry out, each of which differs from the state that the one before leads to, and
    /// the first from the last. None for a device that only measures.
    fn changes(&self) -> Vec<Change>;

    /// Whether the device tells what it was told; without, a command ends as assumed.
    fn reads_back(&self) -> bool {
        true
    }

    /// From now on it takes commands, and answers them as far as its protocol has an answer, and does nothing. Asked of a
    /// peer with changes alone.
    fn ignore(&mut self) -> impl Future<Output = Ignores> + Send;

    /// It stops to answer, as a device whose plug is pulled.
    fn silence(&mut self) -> impl Future<Output = ()> + Send;

    /// It answers again, and as it should.
    fn recover(&mut self) -> impl Future<Output = ()> + Send;

    /// From now on it answers with the wrong message of that number, from 0; false when there are no more.
    fn misbehave(&mut self, number: usize) -> impl Future<Output = bool> + Send;

    /// When each request reached it, polls and commands alike, oldest first.
    fn asked(&self) -> Vec<Instant>;

    /// How many requests it bears in any one second.
    fn most_a_second(&self) -> usize;

    /// How often its state was polled, listened to or changed so far: what an adapter does with a device that it owns, and
    /// not what finds and describes one.
    fn touched(&self) -> usize;
}
