//! The daemon's own process, under the names that Prometheus gives every
//! process.

use std::fmt;

use procfs::process::Process;
use procfs::{ProcResult, page_size, ticks_per_second};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Reads `/proc/self` at each scrape.
#[derive(Debug)]
pub(super) struct ProcessCollector;

/// The process at one moment.
struct ProcessSample {
    resident_bytes: u64,
    cpu_seconds: f64,
    open_fds: u64,
    threads: u64,
}

impl ProcessSample {
    fn read() -> ProcResult<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        Ok(Self {
            resident_bytes: stat.rss.saturating_mul(page_size()),
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks_per_second() as f64,
            open_fds: process.fd_count()? as u64,
            threads: u64::try_from(stat.num_threads).unwrap_or_default(),
        })
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let sample = match ProcessSample::read() {
            Ok(sample) => sample,
            Err(error) => {
                // The scrape still has everything else.
                tracing::warn!(error = %error, "cannot read the daemon's own process");
                return Ok(());
            }
        };
        let mut write = |name: &str, help: &str, unit: Option<Unit>, metric: &dyn Encode| {
            metric.write(&mut encoder, name, help, unit.as_ref())
        };
        let resident = ConstGauge::new(sample.resident_bytes);
        write("process_resident_memory", "Resident memory of the daemon", Some(Unit::Bytes), &resident)?;
        let cpu = ConstCounter::new(sample.cpu_seconds);
        write("process_cpu", "CPU time used by the daemon", Some(Unit::Seconds), &cpu)?;
        write("process_open_fds", "Open descriptors of the daemon", None, &ConstGauge::new(sample.open_fds))?;
        write("process_threads", "Threads of the daemon", None, &ConstGauge::new(sample.threads))
    }
}

/// A metric of any type, as an object.
trait Encode {
    fn write(&self, encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, unit: Option<&Unit>) -> fmt::Result;
}

impl<M: EncodeMetric> Encode for M {
    fn write(&self, encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, unit: Option<&Unit>) -> fmt::Result {
        self.encode(encoder.encode_descriptor(name, help, unit, self.metric_type())?)
    }
}
