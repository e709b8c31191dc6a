//! What the API counts, and `/metrics` in Prometheus' text format 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::{
    fmt::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{ApiContext, ROUTES, problem::Problem};
use crate::service::Status;

/// Kinds of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// One value of somebody else.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its whole name, `hearth_..._UNIT` (`_total` for a counter). Those of one name stand together.
    pub name: &'static str,
    /// What tells it from others of its name, if there are: a label and its value.
    pub label: Option<(&'static str, &'static str)>,
    /// One line about it.
    pub help: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its value now.
    pub value: f64,
}

/// Asked at each scrape; must not block.
pub type MetricsSource = Arc<dyn Fn() -> Vec<Sample> + Send + Sync>;

/// Observers at once: a home's dashboards and scripts, several times over.
pub const MAX_OBSERVERS: u64 = 256;
/// WebSockets at once whose client has not shown its token yet; more than one address may have.
const MAX_NEWCOMERS: u64 = 96;

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What the API counts about itself.
#[derive(Debug)]
pub struct Metrics {
    requests: [[AtomicU64; 5]; ROUTES.len() + 1],
    panics: AtomicU64,
    observers: AtomicU64,
    newcomers: AtomicU64,
    queued_bytes: AtomicU64,
    connections: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            panics: AtomicU64::new(0),
            observers: AtomicU64::new(0),
            newcomers: AtomicU64::new(0),
            queued_bytes: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        }
    }
}

/// Raises a gauge until it is dropped.
pub(super) struct Raised {
    metrics: Arc<Metrics>,
    gauge: fn(&Metrics) -> &AtomicU64,
    by: u64,
}

impl Raised {
    /// Raises it further.
    pub(super) fn add(&mut self, by: usize) {
        let by = u64::try_from(by).unwrap_or(u64::MAX);
        (self.gauge)(&self.metrics).fetch_add(by, Relaxed);
        self.by += by;
    }

    /// Takes back all by which it was raised; answers with how much that was.
    pub(super) fn clear(&mut self) -> u64 {
        let by = std::mem::take(&mut self.by);
        (self.gauge)(&self.metrics).fetch_sub(by, Relaxed);
        by
    }

    /// By how much it is raised.
    pub(super) fn by(&self) -> u64 {
        self.by
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Metrics {
    /// Open observers.
    pub fn observers(&self) -> u64 {
        self.observers.load(Relaxed)
    }

    /// Bytes that observers were sent and their sockets have not taken yet.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes.load(Relaxed)
    }

    /// A place among the observers, if there is one.
    pub(super) fn observer(self: &Arc<Self>) -> Option<Raised> {
        let raised = self.raise(|m| &m.observers);
        (self.observers() <= MAX_OBSERVERS).then_some(raised)
    }

    /// A place among the observers that have not shown their token yet, if there is one.
    pub(super) fn newcomer(self: &Arc<Self>) -> Option<Raised> {
        let raised = self.raise(|m| &m.newcomers);
        (self.newcomers.load(Relaxed) <= MAX_NEWCOMERS).then_some(raised)
    }

    fn raise(self: &Arc<Self>, gauge: fn(&Self) -> &AtomicU64) -> Raised {
        let mut raised = Raised { metrics: Arc::clone(self), gauge, by: 0 };
        raised.add(1);
        raised
    }

    pub(super) fn queue(self: &Arc<Self>) -> Raised {
        Raised { metrics: Arc::clone(self), gauge: |m| &m.queued_bytes, by: 0 }
    }

    pub(super) fn connection(self: &Arc<Self>) -> Raised {
        self.raise(|m| &m.connections)
    }

    pub(super) fn panicked(&self) {
        self.panics.fetch_add(1, Relaxed);
    }

    /// Counts an answer; `route` is its place in [`ROUTES`], none for an unknown one.
    pub(super) fn answered(&self, route: Option<usize>, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        let counter = self.requests.get(route.unwrap_or(ROUTES.len())).and_then(|row| row.get(class));
        if let Some(counter) = counter {
            counter.fetch_add(1, Relaxed);
        }
    }
}

pub(super) async fn exposition(State(context): State<Arc<ApiContext>>) -> Result<Response, Problem> {
    let status = context.service.status().await?;
    let mut text = Text(String::with_capacity(8 * 1024));
    text.node(&status);
    text.api(&context);
    for sample in context.metrics_sources.iter().flat_map(|source| source()) {
        text.sample(&sample);
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text.0).into_response())
}

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, help: &str, kind: Kind) {
        let kind = if kind == Kind::Counter { "counter" } else { "gauge" };
        // Writing into a String does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn one(&mut self, name: &str, help: &str, kind: Kind, value: impl fmt::Display) {
        self.head(name, help, kind);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn sample(&mut self, sample: &Sample) {
        let Sample { name, label, help, kind, value } = *sample;
        match label {
            None => self.one(name, help, kind, value),
            Some(label) => {
                if !self.0.contains(&format!("# TYPE {name} ")) {
                    self.head(name, help, kind);
                }
                self.labelled(name, &[label], value);
            }
        }
    }

    fn labelled(&mut self, name: &str, labels: &[(&str, &str)], value: impl fmt::Display) {
        let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let labels: Vec<_> =
            labels.iter().map(|(name, text)| format!("{name}=\"{}\"", escape(text))).collect();
        let _ = writeln!(self.0, "{name}{{{}}} {value}", labels.join(","));
    }

    fn node(&mut self, status: &Status) {
        let name = "hearth_build_info";
        self.head(name, "The running version.", Kind::Gauge);
        self.labelled(name, &[("version", status.version)], 1);
        self.one("hearth_uptime_seconds", "Time since the start.", Kind::Gauge, status.uptime_s);
        if let Some(bytes) = resident_bytes() {
            self.one("hearth_resident_memory_bytes", "Resident memory of the daemon.", Kind::Gauge, bytes);
        }
        let gauges = [
            ("hearth_objects", "Complete, visible objects.", status.objects),
            ("hearth_objects_incomplete", "Objects that lack a required field.", status.incomplete),
            ("hearth_registers", "Registers held, tombstones included.", status.registers),
            ("hearth_tombstones", "Tombstones not yet collected.", status.tombstones),
            (
                "hearth_tombstone_holders",
                "Absent nodes that hold tombstones back.",
                status.held_back_by.len(),
            ),
            ("hearth_overlay_entries", "Entries of the overlay.", status.overlay),
            ("hearth_quarantined_writes", "Writes from the future, held back.", status.quarantined),
        ];
        for (name, help, value) in gauges {
            self.one(name, help, Kind::Gauge, value);
        }
        let name = "hearth_clock_synchronised";
        let value = u8::from(status.clock_synchronised);
        self.one(name, "Whether the clock is known to be right.", Kind::Gauge, value);
        let name = "hearth_store_writable";
        self.one(
            name,
            "Whether the store can be written.",
            Kind::Gauge,
            u8::from(status.store_error.is_none()),
        );
        let name = "hearth_nodes";
        self.head(name, "Admitted nodes by state.", Kind::Gauge);
        for state in ["self", "alive", "dead", "unreachable", "unknown"] {
            let count = status.nodes.iter().filter(|node| node.state == state).count();
            self.labelled(name, &[("state", state)], count);
        }
        let name = "hearth_events_total";
        self.head(name, "What the mesh counted, offences of peers included, by name.", Kind::Counter);
        for (event, count) in &status.counters {
            self.labelled(name, &[("event", event)], count);
        }
    }

    fn api(&mut self, context: &ApiContext) {
        let metrics = &context.metrics;
        let gauge = |counter: &AtomicU64| counter.load(Relaxed);
        self.one("hearth_observers", "Open observers.", Kind::Gauge, metrics.observers());
        let name = "hearth_observer_queued_bytes";
        self.one(name, "Bytes for observers that no socket has taken.", Kind::Gauge, metrics.queued_bytes());
        let name = "hearth_http_connections";
        self.one(name, "Open HTTP connections.", Kind::Gauge, gauge(&metrics.connections));
        let name = "hearth_http_panics_total";
        self.one(name, "Request handlers that panicked.", Kind::Counter, gauge(&metrics.panics));
        let name = "hearth_tokens_denied_total";
        self.one(name, "Bearer tokens that were refused.", Kind::Counter, context.tokens.denied());
        let name = "hearth_http_requests_total";
        self.head(name, "Answers by route and class of status.", Kind::Counter);
        let routes = ROUTES.iter().copied().chain(["other"]);
        for (route, row) in routes.zip(&metrics.requests) {
            for (class, counter) in CLASSES.iter().zip(row).filter(|(_, counter)| gauge(counter) > 0) {
                self.labelled(name, &[("route", route), ("class", class)], gauge(counter));
            }
        }
    }
}

/// From `VmRSS`, which is in KiB whatever the size of a page is on this board (proc_pid_status(5)).
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}
