//! An end that the node itself decides on, against the wish.

/// Why the node ends a sandbox. It becomes Failed and keeps its files; a newer
/// wish starts it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eviction {
    /// Stable word, e.g. `disk-pressure`.
    pub reason: &'static str,
    /// One sentence for people, with the next step.
    pub message: String,
}
