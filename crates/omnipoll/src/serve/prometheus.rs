//! What a server has counted, as Prometheus reads it.

use std::fmt::Write;

use super::stats::{ServerStats, WorkerStats};

/// One metric: its name without the prefix and its unit, what it says, and where its value is.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&WorkerStats) -> u64,
}

const fn counter(name: &'static str, help: &'static str, value: fn(&WorkerStats) -> u64) -> Metric {
    Metric { name, kind: "counter", help, value }
}

const METRICS: [Metric; 16] = [
    counter("accepted_total", "Clients that were accepted.", |stats| stats.accepted),
    Metric {
        name: "active",
        kind: "gauge",
        help: "Clients that are being served.",
        value: |stats| stats.active,
    },
    counter("received_bytes_total", "Bytes read from clients.", |stats| stats.bytes_in),
    counter("sent_bytes_total", "Bytes that the kernel took for clients.", |stats| stats.bytes_out),
    counter("refused_total", "Clients that were refused.", |stats| stats.refused),
    counter("timed_out_total", "Connections that were ended by a timeout.", |stats| stats.timed_out),
    counter("accept_pauses_total", "Pauses in accepting for lack of descriptors or memory.", |stats| {
        stats.accept_pauses
    }),
    counter("refused_writes_total", "Clients that a broadcast skipped for lack of room.", |stats| {
        stats.writes_refused
    }),
    counter("received_datagrams_total", "Datagrams that arrived.", |stats| stats.datagrams_in),
    counter("sent_datagrams_total", "Datagrams that the kernel took.", |stats| stats.datagrams_out),
    counter("dropped_datagrams_total", "Datagrams that could not be sent.", |stats| stats.datagrams_dropped),
    counter("worker_restarts_total", "Worker processes that died and were replaced.", |stats| stats.restarts),
    counter("refused_header_total", "Clients refused for lack of a header of the PROXY protocol.", |stats| {
        stats.refused_header
    }),
    counter("refused_filter_total", "Clients refused whose address is not allowed.", |stats| {
        stats.refused_filter
    }),
    counter(
        "refused_address_total",
        "Clients refused because their address had too many connections.",
        |stats| stats.refused_address,
    ),
    counter(
        "refused_rate_total",
        "Clients refused because their address made too many connections in a second.",
        |stats| stats.refused_rate,
    ),
];

impl ServerStats {
    /// All of it in Prometheus' text format, version 0.0.4, for an answer to `GET /metrics` of the type
    /// `text/plain; version=0.0.4`: a metric for each field, with a sample for each worker, whose number
    /// is the label `worker`.
    ///
    /// ```
    /// use omnipoll::{Conn, Handler, Server};
    ///
    /// # struct Echo;
    /// # impl Handler for Echo {
    /// #     type State = ();
    /// #     fn on_open(&self, _: &mut Conn<'_>) -> std::io::Result<()> { Ok(()) }
    /// #     fn on_data(&self, conn: &mut Conn<'_>, _: &mut (), data: &[u8]) { let _ = conn.write(data); }
    /// # }
    /// let text = Server::new(Echo)?.handle().stats().prometheus();
    /// assert!(text.contains("\nomnipoll_server_accepted_total{worker=\"0\"} 0\n"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn prometheus(&self) -> String {
        let mut text = String::new();
        for Metric { name, kind, help, value } in METRICS {
            let _ = writeln!(text, "# HELP omnipoll_server_{name} {help}");
            let _ = writeln!(text, "# TYPE omnipoll_server_{name} {kind}");
            for (worker, stats) in self.workers.iter().enumerate() {
                let _ = writeln!(text, "omnipoll_server_{name}{{worker=\"{worker}\"}} {}", value(stats));
            }
        }
        text
    }
}
