//! The daemon's log: one line per event on standard error, as text or JSON,
//! with a filter that can be changed while the daemon runs.

use std::io;

use roost_proto::support::LogRing;
use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::writer::MakeWriterExt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// How a line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Why the log could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter does not parse.
    #[error("the log filter {filter:?} is not right: write e.g. \"info\" or \"info,roostd::sandbox=debug\"")]
    Filter {
        /// What was asked for.
        filter: String,
        /// Where it is wrong.
        #[source]
        source: ParseError,
    },
    /// Something else set up logging in this process before.
    #[error("logging is set up already")]
    Twice(#[source] TryInitError),
    /// The filter cannot be reached.
    #[error("cannot change the log filter")]
    Reload(#[source] reload::Error),
}

/// Hold on the log's filter and its last lines; cheap to clone.
#[derive(Debug, Clone)]
pub struct LogControl {
    filter: reload::Handle<EnvFilter, Registry>,
    ring: LogRing,
}

impl LogControl {
    /// Puts `filter` (tracing's own syntax) in force and returns the one
    /// before. A filter that does not parse changes nothing.
    ///
    /// # Errors
    /// See [`LoggingError`].
    pub fn set_filter(&self, filter: &str) -> Result<String, LoggingError> {
        let new = parse_filter(filter)?;
        let mut previous = String::new();
        self.filter
            .modify(|current| previous = std::mem::replace(current, new).to_string())
            .map_err(LoggingError::Reload)?;
        Ok(previous)
    }

    /// The last lines, as they were written.
    #[must_use]
    pub fn ring(&self) -> &LogRing {
        &self.ring
    }
}

/// Sets up the log of the whole process.
///
/// # Errors
/// [`LoggingError::Filter`], or [`LoggingError::Twice`] on a second call.
pub fn init(format: LogFormat, filter: &str) -> Result<LogControl, LoggingError> {
    let (subscriber, control) = build(format, filter, io::stderr)?;
    subscriber.try_init().map_err(LoggingError::Twice)?;
    Ok(control)
}

/// Everything but the installation.
fn build<W>(
    format: LogFormat,
    filter: &str,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync + use<W>, LogControl), LoggingError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse_filter(filter)?);
    let ring = LogRing::default();
    let kept = ring.clone();
    let lines = tracing_subscriber::fmt::layer().with_writer(writer.and(move || kept.clone()));
    let lines = match format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    Ok((tracing_subscriber::registry().with(filter).with(lines), LogControl { filter: handle, ring }))
}

fn parse_filter(filter: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::builder().parse(filter).map_err(|source| LoggingError::Filter { filter: filter.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn log(format: LogFormat, filter: &str, events: impl FnOnce(&LogControl)) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, control) = build(format, filter, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || events(&control));
        lines.text()
    }

    #[test]
    fn the_filter_changes_what_is_written_and_tells_the_old_one() {
        let text = log(LogFormat::Text, "info", |control| {
            tracing::debug!("hidden");
            assert_eq!(control.set_filter("warn,roostd=debug").unwrap(), "info");
            tracing::debug!("shown");
            assert_eq!(control.set_filter("off").unwrap(), "roostd=debug,warn");
            tracing::error!("silenced");
        });
        assert!(text.contains("shown"), "{text}");
        assert!(!text.contains("hidden") && !text.contains("silenced"), "{text}");
    }

    #[test]
    fn the_last_lines_are_kept_as_they_were_written() {
        let written = log(LogFormat::Text, "info", |control| {
            tracing::info!(sandbox = "sbx-1", "sandbox ready");
            let (kept, _) = control.ring().last(None);
            assert!(kept.len() == 1 && kept[0].contains("sandbox ready"), "{kept:?}");
        });
        assert!(written.contains("sandbox ready"));
    }

    #[test]
    fn a_filter_that_does_not_parse_is_refused_and_changes_nothing() {
        log(LogFormat::Text, "info", |control| {
            let error = control.set_filter("roostd=loud").unwrap_err();
            assert!(matches!(error, LoggingError::Filter { .. }), "{error}");
            assert_eq!(control.set_filter("warn").unwrap(), "info");
        });
    }

    #[test]
    fn a_json_line_carries_its_fields_and_the_message() {
        let text = log(LogFormat::Json, "info", |_| tracing::info!(sandbox = "sbx-1", "sandbox ready"));
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!((line["message"].as_str(), line["sandbox"].as_str()), (Some("sandbox ready"), Some("sbx-1")));
    }
}
