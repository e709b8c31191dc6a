//! Lines of the kernel's GPIO character devices. Nothing decides here.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use gpiocdev::line::{self, Direction, EdgeDetection, EdgeKind, Value};
use gpiocdev::request::Builder;
use gpiocdev::{Chip, Request};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::board::entries;

use super::config::{Bias, LineConfig, Role, Which};
use super::{Edge, Line, Lines, OpenError};

/// Where somebody finds what to do about a chip that is hidden from the service, or refused.
const WAY_OUT: &str =
    "if Hearth's service may not use GPIO, gpio.conf in /usr/share/doc/hearth/hearth.service.d lets it";
/// What the kernel shows as the user of a line.
const CONSUMER: &str = "hearth";

/// The chips of a folder, which is /dev.
pub(super) struct Kernel {
    /// The folder.
    pub(super) root: PathBuf,
}

impl Lines for Kernel {
    fn open(&self, line: &LineConfig, runtime: &Handle) -> Result<Arc<dyn Line>, OpenError> {
        let place = line.place();
        let absent =
            || OpenError::Absent(format!("no chip in {} has {place}: {WAY_OUT}", self.root.display()));
        let (chip, info) = self.find(line).map_err(OpenError::Failed)?.ok_or_else(absent)?;
        let denied =
            |error| OpenError::Failed(format!("{place} of {} cannot be had: {error}", chip.display()));
        let (request, is_debounced) = request(&chip, &info, line).map_err(denied)?;
        let _entered = runtime.enter();
        let deaf = |error| OpenError::Failed(format!("{place} cannot be watched: {error}"));
        let request = watched(request).map_err(deaf)?;
        Ok(Arc::new(KernelLine { request, is_debounced }))
    }
}

impl Kernel {
    /// The chip that has the line, and what the kernel says of it.
    fn find(&self, line: &LineConfig) -> Result<Option<(PathBuf, line::Info)>, String> {
        let names = entries(&self.root, |name| name.starts_with("gpiochip"));
        let mut failure = None;
        for name in &names.map_err(|error| error.to_string())? {
            let path = self.root.join(name);
            match of_chip(&path, name, line) {
                Ok(Some(info)) => return Ok(Some((path, info))),
                Ok(None) => {}
                Err(error) => {
                    failure = Some(format!("{} cannot be used: {error}: {WAY_OUT}", path.display()))
                }
            }
        }
        failure.map_or(Ok(None), Err)
    }
}

/// The line, if this chip is the one and has it.
fn of_chip(path: &Path, name: &str, line: &LineConfig) -> gpiocdev::Result<Option<line::Info>> {
    let is_named = line.chip.as_ref().is_none_or(|wanted| wanted == name);
    let chip = Chip::from_path(path)?;
    if !is_named && line.chip != Some(chip.info()?.label) {
        return Ok(None);
    }
    match &line.line {
        Which::Named(name) => Ok(chip.find_line_info(name)),
        Which::Offset(offset) => {
            let has_it = *offset < chip.info()?.num_lines;
            has_it.then(|| chip.line_info(*offset)).transpose()
        }
    }
}

/// Takes the line, and whether the kernel debounces it.
fn request(chip: &Path, info: &line::Info, line: &LineConfig) -> gpiocdev::Result<(Request, bool)> {
    let mut builder = Request::builder();
    builder.on_chip(chip).with_consumer(CONSUMER).with_line(info.offset);
    if line.role == Role::Switch {
        return output(&mut builder, info, line).map(|request| (request, false));
    }
    builder.as_input().with_edge_detection(EdgeDetection::BothEdges);
    polarity(&mut builder, line);
    if line.debounce.is_zero() {
        return builder.request().map(|request| (request, false));
    }
    let mut debounced = builder.clone();
    debounced.with_debounce_period(line.debounce);
    match debounced.request() {
        Ok(request) => Ok((request, true)),
        Err(_) => builder.request().map(|request| (request, false)), // ours will do
    }
}

/// An output. What something drives already keeps its level, so that a relay does not drop when Hearth is started again;
/// what is an input, as after power-on, begins as off.
fn output(builder: &mut Builder, info: &line::Info, line: &LineConfig) -> gpiocdev::Result<Request> {
    if info.direction != Direction::Output {
        polarity(builder, line);
        return builder.as_output(Value::Inactive).request();
    }
    if line.active_low {
        builder.as_active_low();
    }
    // The kernel takes no bias without a direction.
    let request = builder.as_is().request()?;
    let level = request.value(info.offset)?;
    let mut config = request.config();
    config.with_line(info.offset).as_output(level);
    if let Some(bias) = line.bias {
        config.with_bias(of_kernel(bias));
    }
    request.reconfigure(&config)?;
    Ok(request)
}

fn polarity(builder: &mut Builder, line: &LineConfig) {
    if line.active_low {
        builder.as_active_low();
    }
    if let Some(bias) = line.bias {
        builder.with_bias(of_kernel(bias));
    }
}

fn of_kernel(bias: Bias) -> line::Bias {
    match bias {
        Bias::PullUp => line::Bias::PullUp,
        Bias::PullDown => line::Bias::PullDown,
        Bias::Disabled => line::Bias::Disabled,
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe; a request has one descriptor, its own, as long as it lives"
)]
fn watched(request: Request) -> io::Result<AsyncFd<Request>> {
    AsyncFd::new(request)
}

/// A line of the kernel.
#[derive(Debug)]
struct KernelLine {
    request: AsyncFd<Request>,
    is_debounced: bool,
}

impl Line for KernelLine {
    fn level(&self) -> io::Result<bool> {
        let value = self.request.get_ref().lone_value().map_err(io::Error::other)?;
        Ok(value == Value::Active)
    }

    fn set(&self, on: bool) -> io::Result<()> {
        self.request.get_ref().set_lone_value(on.into()).map_err(io::Error::other)
    }

    fn is_debounced(&self) -> bool {
        self.is_debounced
    }

    fn queued(&self) -> io::Result<Option<Edge>> {
        queued(self.request.get_ref())
    }

    fn edge(&self) -> Pin<Box<dyn Future<Output = io::Result<Edge>> + Send + '_>> {
        Box::pin(async move {
            loop {
                let mut ready = self.request.readable().await?;
                let read = ready.try_io(|request| {
                    queued(request.get_ref())?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
                });
                if let Ok(edge) = read {
                    return edge;
                }
            }
        })
    }
}

/// Reads an edge without waiting for one.
fn queued(request: &Request) -> io::Result<Option<Edge>> {
    if !request.has_edge_event().map_err(io::Error::other)? {
        return Ok(None);
    }
    let event = request.read_edge_event().map_err(io::Error::other)?;
    let at = moment(Duration::from_nanos(event.timestamp_ns));
    Ok(Some(Edge { at, level: event.kind == EdgeKind::Rising }))
}

/// A moment of the kernel's monotonic clock, by which it stamps edges where nobody asks for another.
fn moment(stamp: Duration) -> Instant {
    let clock = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(clock.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(clock.tv_nsec).unwrap_or_default();
    let age = Duration::new(seconds, nanoseconds).saturating_sub(stamp);
    let now = Instant::now();
    now.checked_sub(age).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_of_the_kernel_is_a_moment_of_the_past() {
        let clock = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(clock.tv_sec.try_into().unwrap(), clock.tv_nsec.try_into().unwrap());
        let second = Duration::from_secs(1);
        let age = Instant::now().duration_since(moment(now - second));
        assert!(age >= second && age < second * 10, "{age:?}");
        assert!(moment(now + second * 60) <= Instant::now(), "nothing is of the future");
    }
}
