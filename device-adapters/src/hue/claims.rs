//! Which bridge each device belongs to. A device is the bridge's that told of it first; what another bridge says of the same id, as a
//! copy of it does or one that poses as it, is dropped. Pure.

use std::collections::BTreeMap;

use crate::adapter::Reading;
use crate::model::DeviceId;

use super::keys::BridgeId;

/// The bridge of each device.
#[derive(Debug, Default)]
pub(crate) struct Claims(BTreeMap<DeviceId, BridgeId>);

impl Claims {
    /// Whose a device is.
    pub(crate) fn bridge(&self, device: &DeviceId) -> Option<BridgeId> {
        self.0.get(device).copied()
    }

    /// Whether a reading of a bridge counts. Those of its devices do.
    pub(crate) fn admit(&mut self, bridge: BridgeId, reading: &Reading) -> bool {
        match reading {
            Reading::Found { device } => {
                let first = *self.0.entry(device.id.clone()).or_insert(bridge);
                if first != bridge {
                    tracing::warn!(device = %device.id, %first, second = %bridge, "two Hue bridges have the same device: that of the second is ignored");
                }
                first == bridge
            }
            Reading::Lost { device, .. } => {
                let is_its = self.bridge(device) == Some(bridge);
                if is_its {
                    self.0.remove(device);
                }
                is_its
            }
            Reading::Reported { device, .. }
            | Reading::Measured { device, .. }
            | Reading::Availability { device, .. }
            | Reading::Progress { device, .. } => self.bridge(device).is_none_or(|first| first == bridge),
            _ => true,
        }
    }
}
