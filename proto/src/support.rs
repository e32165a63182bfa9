//! What support bundles are made with, by daemon and central alike.
//!
//! - [`Redactor`]: takes secrets out of texts and values, at the source: they
//!   never leave the process that knows them.
//! - [`LogRing`]: the last lines of the process's own log.
//! - [`Files`]: the texts of a bundle, bounded, as the parts that are sent.

mod files;
mod redact;
mod ring;

pub use files::{Files, MAX_FILE_BYTES};
pub use redact::{REDACTED, RedactError, Redactor, redacted_spec};
pub use ring::LogRing;
