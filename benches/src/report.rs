//! What a bench says: one JSON object a line on stdout.

use std::io::Write;
use std::time::Duration;

use roost_tests::Result;
use serde::Serialize;

use crate::proc;

/// One figure, as other programs read it.
#[derive(Debug, Serialize)]
struct Line<'a> {
    bench: &'a str,
    metric: &'a str,
    value: f64,
    unit: &'a str,
    /// Samples behind the value.
    n: usize,
    /// How it was measured, and on what machine.
    note: String,
}

/// The figures of one bench.
#[derive(Debug)]
pub(crate) struct Report {
    bench: &'static str,
    machine: String,
}

impl Report {
    /// A report of the bench of this name, on this machine.
    ///
    /// # Errors
    /// When the machine's facts cannot be read.
    pub(crate) fn new(bench: &'static str) -> Result<Self> {
        Ok(Self { bench, machine: proc::machine()? })
    }

    /// The bench's name.
    pub(crate) fn bench(&self) -> &'static str {
        self.bench
    }

    /// Prints one figure from `n` samples.
    ///
    /// # Errors
    /// When stdout cannot be written, or the value is no number.
    pub(crate) fn figure(&self, metric: &str, value: f64, unit: &str, n: usize, note: &str) -> Result<()> {
        let line = self.line(metric, value, unit, n, note)?;
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{line}")?;
        Ok(stdout.flush()?)
    }

    /// Prints the median of samples in milliseconds.
    ///
    /// # Errors
    /// As [`Report::figure`]; also when there is no sample.
    pub(crate) fn median_ms(&self, metric: &str, samples: &Samples, note: &str) -> Result<()> {
        self.figure(metric, samples.percentile_ms(50)?, "ms", samples.len(), note)
    }

    fn line(&self, metric: &str, value: f64, unit: &str, n: usize, note: &str) -> Result<String> {
        if !value.is_finite() {
            return Err(format!("{metric} is {value}: nothing was measured").into());
        }
        let separator = if note.is_empty() { "" } else { "; " };
        let note = format!("{note}{separator}{}", self.machine);
        let value = (value * 1000.0).round() / 1000.0;
        Ok(serde_json::to_string(&Line { bench: self.bench, metric, value, unit, n, note })?)
    }
}

/// Durations of the same thing, measured again and again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// Adds one.
    pub(crate) fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// Looks at each.
    pub(crate) fn each(&self, look: impl FnMut(Duration)) {
        self.0.iter().copied().for_each(look);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A percentile in milliseconds by nearest rank: the smallest sample that
    /// at least `percent` of all do not exceed. Always a value that occurred.
    ///
    /// # Errors
    /// When there is no sample.
    pub(crate) fn percentile_ms(&self, percent: usize) -> Result<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        let sample = sorted.get(rank - 1).ok_or("no sample was taken")?;
        Ok(sample.as_secs_f64() * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values_ms: impl IntoIterator<Item = u64>) -> Samples {
        Samples(values_ms.into_iter().map(Duration::from_millis).collect())
    }

    fn report() -> Report {
        Report { bench: "cold-start", machine: "2 cores".into() }
    }

    #[test]
    fn a_percentile_is_the_smallest_sample_that_enough_others_do_not_exceed() {
        let hundred = samples((1..=100).rev());
        assert_eq!(hundred.percentile_ms(50).unwrap(), 50.0);
        assert_eq!(hundred.percentile_ms(99).unwrap(), 99.0);
        let three = samples([30, 10, 20]);
        assert_eq!(three.percentile_ms(50).unwrap(), 20.0);
        assert_eq!(three.percentile_ms(99).unwrap(), 30.0);
        assert_eq!(samples([7]).percentile_ms(1).unwrap(), 7.0);
    }

    #[test]
    fn no_sample_is_an_error_and_not_a_zero() {
        assert!(samples([]).percentile_ms(50).is_err());
        assert!(report().line("p50_ms", f64::NAN, "ms", 0, "").is_err());
    }

    #[test]
    fn a_line_has_exactly_the_fields_that_readers_know() {
        let line = report().line("p50_ms", 12.345_678, "ms", 60, "warm").unwrap();
        assert_eq!(
            line,
            r#"{"bench":"cold-start","metric":"p50_ms","value":12.346,"unit":"ms","n":60,"note":"warm; 2 cores"}"#
        );
        assert!(report().line("x", 1.0, "ms", 1, "").unwrap().ends_with(r#""note":"2 cores"}"#));
    }
}
