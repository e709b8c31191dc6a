//! An adapter that runs in a test, and what it says.

use std::collections::BTreeMap;
use std::time::Duration;

use device_adapters::contract::SHUTDOWN_WITHIN;
use device_adapters::model::{
    Availability, Change, CommandId, Description, DeviceId, Measurement, Stage, State,
};
use device_adapters::{AdapterError, Context, Directive, Handle, Hint, Reading, find};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, timeout_at};

/// How long anything that works may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running adapter.
#[derive(Debug)]
pub struct Running {
    handle: Handle,
    /// All that it said so far.
    pub seen: Vec<Reading>,
    commands: u128,
    run: JoinHandle<Result<(), AdapterError>>,
}

impl Running {
    /// Starts the adapter of that id.
    ///
    /// # Panics
    /// When there is none, or it refuses the settings.
    #[must_use]
    pub fn start(adapter: &str, settings: &Value) -> Self {
        let adapter = (find(adapter).unwrap().build)(settings).unwrap();
        let (context, handle) = Context::channel(64, 64);
        let run = tokio::spawn(async move { adapter.run(context).await });
        Self { handle, seen: Vec::new(), commands: 0, run }
    }

    /// Something announced itself.
    ///
    /// # Panics
    /// When the adapter ended.
    pub async fn hint(&self, hint: Hint) {
        self.handle.hints.send(hint).await.unwrap();
    }

    /// Tells the adapter something.
    ///
    /// # Panics
    /// When it ended.
    pub async fn direct(&self, directive: Directive) {
        self.handle.commands.send(directive).await.unwrap();
    }

    /// Owns the device from now on, or no longer does.
    ///
    /// # Panics
    /// When the adapter ended.
    pub async fn own(&self, device: &DeviceId, owned: bool) {
        self.direct(Directive::Own { device: device.clone(), owned }).await;
    }

    /// Asks for the state now.
    ///
    /// # Panics
    /// When the adapter ended.
    pub async fn refresh(&self, device: &DeviceId) {
        self.direct(Directive::Refresh { device: device.clone() }).await;
    }

    /// Asks a bridge that waits for its button for a key, for so long.
    ///
    /// # Panics
    /// When the adapter ended.
    pub async fn pair(&self, within: Duration) {
        self.direct(Directive::Pair { until: Instant::now() + within }).await;
    }

    /// Sends a command, and gives the stage in which it ends.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn change(&mut self, device: &DeviceId, change: Change) -> Stage {
        let command = self.command(device, change, PATIENCE / 4).await;
        self.end_of(command).await
    }

    /// Sends a command that has so long after its transition. Their ids count up from 1.
    ///
    /// # Panics
    /// When the adapter ended.
    pub async fn command(&mut self, device: &DeviceId, change: Change, within: Duration) -> CommandId {
        self.commands += 1;
        let command = CommandId(self.commands.to_be_bytes());
        let deadline = Instant::now() + within + Duration::from_millis(change.transition_ms().into());
        let (device, by) = (device.clone(), "user:ann".to_owned());
        self.direct(Directive::Command { device, command, change, by, deadline }).await;
        command
    }

    /// The stage in which a command ends, or ended.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn end_of(&mut self, command: CommandId) -> Stage {
        let end = |reading: &Reading| match reading {
            Reading::Progress { command: of, stage, .. } if *of == command && stage.is_final() => {
                Some(stage.clone())
            }
            _ => None,
        };
        match self.seen.iter().find_map(end) {
            Some(stage) => stage,
            None => self.next("the end of a command", end).await,
        }
    }

    /// How the run ends by itself.
    ///
    /// # Panics
    /// When it does not.
    pub async fn ends(&mut self) -> Result<(), AdapterError> {
        let end = Instant::now() + PATIENCE;
        loop {
            match timeout_at(end, self.handle.readings.recv()).await {
                Ok(Some(reading)) => self.seen.push(reading),
                Ok(None) => return (&mut self.run).await.unwrap(),
                Err(_) => panic!("it does not end; saw {:#?}", self.seen),
            }
        }
    }

    /// Whether the run is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.run.is_finished()
    }

    /// Stops it, and gives all that it said.
    ///
    /// # Panics
    /// When it does not stop in time, or ends with an error.
    pub async fn stop(mut self) -> Vec<Reading> {
        self.handle.stop.send(true).unwrap();
        let end = Instant::now() + SHUTDOWN_WITHIN;
        while let Ok(Some(reading)) = timeout_at(end, self.handle.readings.recv()).await {
            self.seen.push(reading);
        }
        timeout_at(end, self.run).await.expect("it stops in time").unwrap().unwrap();
        self.seen
    }

    /// Takes in what it has said, so that it need not wait for that.
    pub fn take_in(&mut self) {
        while let Ok(reading) = self.handle.readings.try_recv() {
            self.seen.push(reading);
        }
    }

    /// The first thing that `pick` picks of what it says from now on.
    ///
    /// # Panics
    /// When nothing comes in time.
    pub async fn next<T>(&mut self, what: &str, pick: impl Fn(&Reading) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            let Ok(reading) = timeout_at(end, self.handle.readings.recv()).await else {
                panic!("waited for {what}, saw {:#?}", self.seen);
            };
            let Some(reading) = reading else {
                panic!("waited for {what}, and it ended: {:?}", (&mut self.run).await)
            };
            self.seen.push(reading.clone());
            if let Some(picked) = pick(&reading) {
                return picked;
            }
        }
    }

    /// What the device of that id is, when it is found.
    pub async fn found(&mut self, id: &DeviceId) -> Description {
        let is_it = |reading: &Reading| match reading {
            Reading::Found { device } if device.id == *id => Some(device.clone()),
            _ => None,
        };
        match self.seen.iter().rev().find_map(is_it) {
            Some(found) => found,
            None => self.next("the device to be found", is_it).await,
        }
    }

    /// Finds a device, owns it and waits until it is online.
    pub async fn owning(&mut self, id: &DeviceId) -> Description {
        let found = self.found(id).await;
        self.own(id, true).await;
        self.available(id, Availability::Online).await;
        found
    }

    /// Why a device is what is wanted.
    pub async fn available(&mut self, id: &DeviceId, wanted: Availability) -> String {
        self.next(&format!("{id} to be {wanted:?}"), |reading| match reading {
            Reading::Availability { device, availability, reason }
                if device == id && *availability == wanted =>
            {
                Some(reason.clone())
            }
            _ => None,
        })
        .await
    }

    /// Waits until what was said last of each of these devices is what is wanted, and gives the reasons.
    pub async fn all_available(&mut self, devices: &[DeviceId], wanted: Availability) -> Vec<String> {
        loop {
            let last = |id: &DeviceId| {
                self.seen.iter().rev().find_map(|reading| match reading {
                    Reading::Availability { device, availability, reason } if device == id => {
                        Some((*availability, reason.clone()))
                    }
                    _ => None,
                })
            };
            let reasons: Option<Vec<String>> = devices
                .iter()
                .map(|id| last(id).filter(|(is, _)| *is == wanted).map(|(_, why)| why))
                .collect();
            match reasons {
                Some(reasons) => return reasons,
                None => self.next(&format!("{devices:?} to be {wanted:?}"), |_| Some(())).await,
            }
        }
    }

    /// The next measurements of a device, all of them.
    pub async fn measured(&mut self, id: &DeviceId) -> BTreeMap<String, Measurement> {
        self.next(&format!("measurements of {id}"), |reading| match reading {
            Reading::Measured { device, values } if device == id => Some(values.clone()),
            _ => None,
        })
        .await
    }

    /// Waits for a state of a device that fits.
    pub async fn reports(&mut self, id: &DeviceId, fits: impl Fn(&State) -> bool) {
        self.next(&format!("a state of {id}"), |reading| match reading {
            Reading::Reported { device, state, .. } if device == id && fits(state) => Some(()),
            _ => None,
        })
        .await;
    }

    /// Waits until a sensor yields that.
    pub async fn measures(&mut self, id: &DeviceId, key: &str, wanted: &Measurement) {
        self.next(&format!("{key} of {id}"), |reading| match reading {
            Reading::Measured { device, values } if device == id && values.get(key) == Some(wanted) => {
                Some(())
            }
            _ => None,
        })
        .await;
    }
}

/// Waits until it is so.
///
/// # Panics
/// When it does not become so in time.
pub async fn until(is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    let mut pace = interval(Duration::from_millis(10));
    while !is_so() {
        assert!(Instant::now() < end, "it never became so");
        pace.tick().await;
    }
}
