//! Why a start ends before Ready, and what people read about it.

use roost_proto::model::{ImageRef, Stage};

use super::eviction::Eviction;
use super::image::ImageError;
use super::volumes::VolumesError;
use crate::containerd;
use crate::host;

/// Reason: no window manager manages the screen any more.
pub const MANAGER_LOST: &str = "window-manager-lost";
/// Reason: the kernel killed it for want of memory.
pub const OUT_OF_MEMORY: &str = "out-of-memory";

/// Why a start did not reach Ready.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The wish changed meanwhile.
    #[error("the start was given up")]
    Cancelled,
    /// An image cannot be used.
    #[error("image {reference} cannot be used")]
    Image {
        /// Which.
        reference: ImageRef,
        /// Why.
        #[source]
        source: ImageError,
    },
    /// A containerd call failed.
    #[error("a container could not be run")]
    Containerd(#[from] containerd::Error),
    /// A step on the host failed.
    #[error("the host refused a step")]
    Host(#[from] host::Error),
    /// A volume could not be attached.
    #[error("its volumes could not be attached")]
    Volume(#[source] VolumesError),
    /// The display did not come up or cannot be read.
    #[error("the display failed")]
    Display(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A container ended during the start.
    #[error("the {role} ended with exit code {exit_code} during its start")]
    Exited {
        /// `display` or `workload`.
        role: &'static str,
        /// 128 + signal when killed.
        exit_code: i32,
    },
    /// The window manager that Roost runs ended during the start.
    #[error("the window manager ended with exit code {exit_code} during the start")]
    WindowManager {
        /// 127: the display image has none.
        exit_code: i32,
    },
    /// The node ended it.
    #[error("the node ended the start")]
    Evicted(Eviction),
    /// The start took longer than its template allows.
    #[error("not Ready within {timeout_ms} ms")]
    Timeout {
        /// What the template allows.
        timeout_ms: u32,
    },
}

impl From<VolumesError> for StartError {
    fn from(error: VolumesError) -> Self {
        match error {
            VolumesError::Containerd(error) => Self::Containerd(error),
            error => Self::Volume(error),
        }
    }
}

impl StartError {
    /// Whether the same start may succeed a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.containerd().is_some_and(containerd::Error::is_unavailable)
    }

    /// Whether a shim ended in the middle: as a rule the next one does not.
    #[must_use]
    pub fn is_shim_lost(&self) -> bool {
        self.containerd().is_some_and(containerd::Error::is_shim_lost)
    }

    /// What containerd said, wherever in a start it was asked.
    fn containerd(&self) -> Option<&containerd::Error> {
        match self {
            Self::Containerd(error) | Self::Image { source: ImageError::Layers(error), .. } => Some(error),
            Self::Image { source: ImageError::Records(source), .. } => match &**source {
                containerd::image::ImageError::Containerd(error) => Some(error),
                _ => None,
            },
            _ => None,
        }
    }

    /// Stable word for programs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            _ if self.is_transient() => "containerd-unavailable",
            Self::Cancelled => "cancelled",
            Self::Image { source: ImageError::Missing, .. } => "image-missing",
            Self::Image { source: ImageError::Pull(_), .. } => "image-pull-failed",
            Self::Image { .. } => "image-unusable",
            Self::Containerd(_) => "container-failed",
            Self::Host(_) => "host-failed",
            Self::Volume(_) => "volume-failed",
            Self::Display(_) => "display-failed",
            Self::Exited { role: "display", .. } => "display-exited",
            Self::Exited { .. } => "workload-exited",
            Self::WindowManager { .. } => MANAGER_LOST,
            Self::Evicted(eviction) => eviction.reason,
            Self::Timeout { .. } => "start-timeout",
        }
    }

    /// One sentence for people, with the next step.
    #[must_use]
    pub fn message(&self, stage: Stage) -> String {
        let next = match self {
            Self::Evicted(eviction) => return eviction.message.clone(),
            _ if self.is_transient() => "it is tried again until containerd answers",
            Self::Image { source: ImageError::Missing, .. } => "`roost image pull` or `roost image import` brings it",
            Self::Image { source: ImageError::Pull(_), .. } => "then `roost sandbox start`",
            Self::Image { .. } => "import it again with `roost image import`",
            Self::WindowManager { exit_code: 127 } => "the display image has none: build and import it again",
            Self::Exited { role: "display", .. } | Self::Display(_) | Self::WindowManager { .. } => {
                "see `roost sandbox logs --display`"
            }
            Self::Exited { .. } | Self::Timeout { .. } => "see `roost sandbox logs`",
            Self::Volume(_) => "see `roost volume get`, then `roost sandbox start`",
            Self::Cancelled | Self::Containerd(_) | Self::Host(_) => "see the log of roostd",
        };
        format!("{}, at stage {stage}: {next}", chain(self))
    }
}

/// An error with all its causes, in one line. What a cause only repeats is said
/// once: some libraries print the cause in the error as well.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_image_says_how_to_bring_it() {
        let error = StartError::Image { reference: "a".parse().unwrap(), source: ImageError::Missing };
        assert_eq!(error.reason(), "image-missing");
        let message = error.message(Stage::Rootfs);
        assert!(message.contains("roost image import") && message.contains("a:latest"), "{message}");
    }

    #[test]
    fn what_a_cause_only_repeats_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{text}")]
        struct Told {
            text: &'static str,
            source: Option<Box<Told>>,
        }
        let told = |text, source: Option<Told>| Told { text, source: source.map(Box::new) };
        let repeated = told("cannot parse: no level", Some(told("no level", Some(told("no level", None)))));
        assert_eq!(chain(&told("filter", Some(repeated))), "filter: cannot parse: no level");
        assert_eq!(chain(&told("a", Some(told("b", None)))), "a: b");
    }

    #[test]
    fn a_containerd_that_is_away_is_waited_for_also_while_images_are_looked_up() {
        let away = || containerd::Error::from_status("view snapshot", "x", tonic::Status::unavailable("away"));
        let image = |source| StartError::Image { reference: "a".parse().unwrap(), source };
        let records = containerd::image::ImageError::Containerd(away());
        for error in [
            StartError::Containerd(away()),
            image(ImageError::Layers(away())),
            image(ImageError::Records(Box::new(records))),
        ] {
            assert!(error.is_transient(), "{error:?}");
            assert_eq!(error.reason(), "containerd-unavailable");
        }
        let lost = containerd::Error::from_status(
            "create task",
            "x",
            tonic::Status::unknown("failed to create shim task: ttrpc: closed: unknown"),
        );
        assert!(lost.is_shim_lost() && !StartError::Containerd(lost).is_transient());
        let broken = containerd::Error::from_status("view snapshot", "x", tonic::Status::internal("broken"));
        assert!(!image(ImageError::Layers(broken)).is_transient());
    }
}
