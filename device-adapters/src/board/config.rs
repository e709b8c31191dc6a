//! The settings that adapters of a board share.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::adapter::{Descriptor, SettingsError};
use crate::settings::Settings;

/// The settings of sensors that the kernel shows as files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Polled {
    /// The folder of sysfs.
    pub(crate) root: PathBuf,
    /// The time between two polls.
    pub(crate) poll: Duration,
}

impl Polled {
    /// The JSON schema of these settings; `remark` says what polls cost.
    pub(crate) fn schema(remark: &str) -> Value {
        json!({
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "poll_s": {
                    "type": "number", "minimum": 1, "maximum": 3600, "default": 30,
                    "description": format!("Seconds between two readings of a sensor. {remark}")
                },
                "root": root_schema("/sys")
            }
        })
    }

    /// Checks the settings and fills in the defaults.
    pub(crate) fn parse(descriptor: &Descriptor, value: &Value) -> Result<Self, SettingsError> {
        let settings = Settings::new(descriptor, value)?;
        Ok(Self { root: root(&settings, "/sys")?, poll: settings.seconds("poll_s", 1.0..=3_600.0, 30.0)? })
    }
}

/// The setting that says where the kernel shows its devices.
pub(crate) fn root(settings: &Settings<'_>, default: &str) -> Result<PathBuf, SettingsError> {
    let rule = "the path of a folder from the root, such as /sys";
    settings.text("root", rule, PathBuf::from(default), |text| {
        Some(PathBuf::from(text)).filter(|path| path.is_absolute() && !text.contains('\0'))
    })
}

/// The schema of that setting.
pub(crate) fn root_schema(default: &str) -> Value {
    json!({
        "type": "string", "default": default,
        "description": "The folder where the kernel shows its devices. Another one is for tests."
    })
}
