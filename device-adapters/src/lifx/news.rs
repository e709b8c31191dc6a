//! What the node is told of a device: each thing once, until there is something new.

use std::collections::BTreeMap;

use crate::adapter::Reading;
use crate::model::{Availability, CommandId, Description, DeviceId, Measurement, Source, Stage, State};

use super::output::Output;
use super::reading;

/// What the node was told last.
#[derive(Debug)]
pub(crate) struct News {
    device: DeviceId,
    found: bool,
    availability: Option<Availability>,
    /// The newest command all of whose Sets were acknowledged.
    followed: Option<CommandId>,
    report: Option<(State, Option<CommandId>)>,
    measured: BTreeMap<String, Measurement>,
}

impl News {
    /// Nothing was told.
    pub(crate) fn new(device: DeviceId) -> Self {
        Self {
            device,
            found: false,
            availability: None,
            followed: None,
            report: None,
            measured: BTreeMap::new(),
        }
    }

    /// Of which device.
    pub(crate) fn device(&self) -> &DeviceId {
        &self.device
    }

    /// Whether the node knows that it is there, and what it is.
    pub(crate) fn is_found(&self) -> bool {
        self.found
    }

    /// It is another than was told.
    pub(crate) fn is_another(&mut self) {
        self.found = false;
    }

    /// It is there, and that is what it is.
    pub(crate) fn found(&mut self, device: Description, out: &mut Output) {
        self.found = true;
        out.readings.push_back(Reading::Found { device });
    }

    /// It is not there any more. One that is lost before polls miss it is told online anew when it is back.
    pub(crate) fn lost(&mut self, reason: String, out: &mut Output) {
        self.found = false;
        self.availability = self.availability.filter(|is| *is == Availability::Offline);
        out.readings.push_back(Reading::Lost { device: self.device.clone(), reason });
    }

    /// Which availability was told, if one was.
    pub(crate) fn availability(&self) -> Option<Availability> {
        self.availability
    }

    /// Its availability has changed.
    pub(crate) fn available(&mut self, availability: Availability, reason: String, out: &mut Output) {
        self.availability = Some(availability);
        out.readings.push_back(Reading::Availability { device: self.device.clone(), availability, reason });
    }

    /// What is read from now on shows what that command did.
    pub(crate) fn follow(&mut self, command: CommandId) {
        self.followed = Some(command);
    }

    /// It shows that.
    pub(crate) fn report(&mut self, state: &State, out: &mut Output) {
        let state = match state {
            State::Light(light) => State::Light(reading::bounded(light.clone())),
            other => other.clone(),
        };
        let report = (state, self.followed);
        if self.report.as_ref() == Some(&report) {
            return;
        }
        out.readings.push_back(Reading::Reported {
            device: self.device.clone(),
            state: report.0.clone(),
            command: self.followed,
            source: Source::ReadBack,
        });
        self.report = Some(report);
    }

    /// Its sensors yielded that.
    pub(crate) fn measured(&mut self, values: BTreeMap<String, Measurement>, out: &mut Output) {
        if self.measured != values {
            let device = self.device.clone();
            out.readings.push_back(Reading::Measured { device, values: values.clone() });
            self.measured = values;
        }
    }

    /// What it shows next is told even if it is the same as before.
    pub(crate) fn repeat(&mut self) {
        self.report = None;
        self.measured.clear();
    }

    /// Nothing that was told of how it is counts: another node owned it, or will.
    pub(crate) fn forget(&mut self) {
        self.availability = None;
        self.repeat();
    }

    /// A command has come so far.
    pub(crate) fn progress(&self, command: CommandId, stage: Stage, out: &mut Output) {
        out.readings.push_back(Reading::Progress { device: self.device.clone(), command, stage });
    }
}
