//! Commands that are kept to be given later, or twice: by schedules, automations and scenes.

use serde_json::Value as Any;

use super::{
    super::{
        devices::{Target, find_target},
        ports::{Change, Power},
        problem::Problem,
    },
    Asked, CommandBody, change_of, check_capabilities,
};
use crate::{
    auth::scope::WHOLE,
    service::{ObjectView, Service},
};

/// A command that is to be given later, as it is kept: of a device that is there and can do that, by its id, so that it may be
/// renamed meanwhile.
pub(in crate::api) async fn keep(service: &Service, mut command: Any) -> Result<Any, Problem> {
    let asked = check_later(&command)?;
    if let Target::Device(device) = find_target(service, &WHOLE, &asked.device).await? {
        check_capabilities(&device, &asked.change)?;
        if let Any::Object(map) = &mut command {
            map.insert("device".to_owned(), device.id.as_str().into());
        }
    }
    Ok(command)
}

/// Checks a command that is to be given later, but for its device.
pub(crate) fn check_later(command: &Any) -> Result<Asked, Problem> {
    let body: CommandBody = serde_json::from_value(command.clone()).map_err(|rule| {
        Problem::invalid(
            format!("a command is not understood: {rule}"),
            "docs/time.md shows one, as `hearth schedule set` takes it",
        )
    })?;
    if body.key.is_some() || body.wait {
        let detail = "`key` and `wait` are for a command that is given now";
        return Err(Problem::invalid(detail, "leave them out"));
    }
    let asked = body.check()?;
    check_no_toggle(&asked.change)?;
    Ok(asked)
}

/// Checks a change that is to be made later, but for its device.
pub(crate) fn change_later(change: &Any) -> Result<Change, Problem> {
    let change = change_of(change)?;
    check_no_toggle(&change)?;
    Ok(change)
}

/// What is given later may be given twice, after a restart.
fn check_no_toggle(change: &Change) -> Result<(), Problem> {
    if change.on == Some(Power::Toggle) {
        let detail = "a toggle is kept: should it come twice, it would undo itself";
        return Err(Problem::invalid(detail, "write on or off"));
    }
    Ok(())
}

/// A change of a device that is kept: it is the same whenever it is made.
pub(crate) fn check_kept(device: &ObjectView, change: &Any) -> Result<(), Problem> {
    check_capabilities(device, &check_change_kept(device.id.as_str(), change)?)
}

/// The same, but for what the device can do.
pub(crate) fn check_change_kept(device: &str, change: &Any) -> Result<Change, Problem> {
    let change = change_of(change)?;
    if change.press || change.on == Some(Power::Toggle) || change.transition_ms > 0 {
        let detail = format!("{device}: a press, a toggle or a transition is kept");
        let fix = "say what the device shall be; the transition is given once for all";
        return Err(Problem::invalid(detail, fix));
    }
    Ok(change)
}
