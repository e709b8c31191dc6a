//! What the parts of the node count, for `/metrics`.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    api::metrics::{Kind, MetricsSource, Sample},
    auth::JoinCounters,
    automation::Counts,
    devices::{AdapterState, AdapterStatus},
    history::Report,
    plain_http::HttpCounters,
    store::RecoveryReport,
    transport::TransportCounters,
};

pub(super) fn transport_metrics(counters: Arc<TransportCounters>) -> MetricsSource {
    Arc::new(move || samples("Events of the transport since the start.", counters.metrics()))
}

pub(super) fn join_metrics(counters: Arc<JoinCounters>) -> MetricsSource {
    Arc::new(move || samples("Ends of requests to join the household since the start.", counters.metrics()))
}

/// What happened on the HTTP port.
pub(super) fn http_metrics(counters: Arc<HttpCounters>) -> MetricsSource {
    Arc::new(move || {
        samples("Requests and connections to the HTTP port since the start.", counters.metrics())
    })
}

/// What the opening of the store found: counters that stand still until the next start.
pub(super) fn store_metrics(report: &RecoveryReport) -> MetricsSource {
    let mended = u64::from(!report.steps.is_empty());
    let damaged = u64::from(report.may_have_lost_writes());
    Arc::new(move || {
        let help = "Whether this start had to mend the store, and whether that lost records.";
        samples(help, [("hearth_store_mended_total", mended), ("hearth_store_damaged_total", damaged)])
    })
}

/// Where the adapters stand on this node.
pub(super) fn adapter_metrics(adapters: watch::Receiver<Vec<AdapterStatus>>) -> MetricsSource {
    Arc::new(move || {
        let adapters = adapters.borrow();
        let help = "Adapters of this node by where they stand; failed is to be started again after a pause.";
        let standing = AdapterState::ALL.into_iter().map(|(state, word)| Sample {
            name: "hearth_adapters",
            label: Some(("state", word)),
            help,
            kind: Kind::Gauge,
            value: adapters.iter().filter(|adapter| adapter.state == state).count() as f64,
        });
        let restarts: u64 = adapters.iter().map(|adapter| u64::from(adapter.restarts)).sum();
        let help = "How often adapters that had failed ran again.";
        standing.chain(samples(help, [("hearth_adapter_restarts_total", restarts)])).collect()
    })
}

/// How the history is.
pub(super) fn history_metrics(report: watch::Receiver<Report>) -> MetricsSource {
    Arc::new(move || {
        let report = report.borrow();
        let gauge = |name, help, value: f64| Sample { name, label: None, help, kind: Kind::Gauge, value };
        let gauges = [
            gauge("hearth_history_bytes", "What the history takes on the disk.", report.disk_bytes as f64),
            gauge(
                "hearth_history_damaged_entries",
                "Entries of the history that were found damaged.",
                report.damaged as f64,
            ),
            gauge(
                "hearth_history_writable",
                "Whether the history can be written.",
                f64::from(u8::from(report.failing.is_none())),
            ),
        ];
        let help = "What the history wrote and left out since the start: bytes, entries, values for which there was no room.";
        let counts = [
            ("hearth_history_written_bytes_total", report.written_bytes),
            ("hearth_history_entries_total", report.entries),
            ("hearth_history_dropped_values_total", report.dropped),
        ];
        gauges.into_iter().chain(samples(help, counts)).collect()
    })
}

/// What happened by itself on this node.
pub(super) fn automation_metrics(counts: Arc<Counts>) -> MetricsSource {
    Arc::new(move || {
        let help = "Times of schedules since the start: carried out on this node, of those failed and begun before by a node that died, \
            and missed without being made up for.";
        samples(help, counts.metrics())
    })
}

fn samples(help: &'static str, counts: impl IntoIterator<Item = (&'static str, u64)>) -> Vec<Sample> {
    let sample = |(name, value): (&'static str, u64)| Sample {
        name,
        label: None,
        help,
        kind: Kind::Counter,
        value: value as f64,
    };
    counts.into_iter().map(sample).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn counters_of_joins_are_not_called_those_of_the_transport() {
        let joins = join_metrics(Arc::default())();
        assert!(!joins.is_empty() && joins.iter().all(|sample| sample.help.contains("join")));
    }

    fn value(samples: &[Sample], name: &str, label: Option<&str>) -> f64 {
        let of = |sample: &&Sample| sample.name == name && sample.label.map(|(_, value)| value) == label;
        samples.iter().find(of).unwrap().value
    }

    #[test]
    fn adapters_are_counted_by_where_they_stand() {
        let adapter =
            |id: &str, state, restarts| AdapterStatus { id: id.into(), state, reason: None, restarts };
        let all = vec![
            adapter("hue", AdapterState::Failed, 3),
            adapter("lifx", AdapterState::Running, 1),
            adapter("wled", AdapterState::Running, 0),
        ];
        let samples = adapter_metrics(watch::channel(all).1)();
        let of = |state| value(&samples, "hearth_adapters", Some(state));
        assert_eq!((of("running"), of("failed"), of("refused")), (2.0, 1.0, 0.0));
        assert_eq!(value(&samples, "hearth_adapter_restarts_total", None), 4.0);
    }

    #[test]
    fn the_history_tells_what_it_wrote_and_what_is_damaged() {
        let failing = Some("the disk is full".into());
        let report =
            Report { written_bytes: 70, entries: 2, dropped: 3, damaged: 1, failing, ..Report::default() };
        let samples = history_metrics(watch::channel(report).1)();
        let of = |name| value(&samples, name, None);
        assert_eq!(
            (of("hearth_history_written_bytes_total"), of("hearth_history_entries_total")),
            (70.0, 2.0)
        );
        assert_eq!(
            (of("hearth_history_dropped_values_total"), of("hearth_history_damaged_entries")),
            (3.0, 1.0)
        );
        assert_eq!(of("hearth_history_writable"), 0.0);
    }
}
