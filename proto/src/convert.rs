//! Between wire messages and the model.
//!
//! Reading is strict: a missing or unknown value is an [`InvalidMessage`] that
//! names the field. Writing cannot fail.

mod claim;
mod copy;
mod image;
mod lifetime;
mod node;
mod pressure;
mod restart;
mod sandbox;
mod support;
mod volume;

use crate::model::FieldError;

pub use image::pull_policy_or;
pub use sandbox::resources;

/// A message from outside that does not say what it must.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("message is invalid: {}", join(.0))]
pub struct InvalidMessage(pub Vec<FieldError>);

fn join(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl InvalidMessage {
    /// One field at fault.
    pub fn field(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self(vec![FieldError::new(field, problem)])
    }
}

/// Parses a text field into an id or name.
///
/// # Errors
/// The parser's own sentence, under the name of the field.
pub fn parse<T>(field: &str, text: &str) -> Result<T, InvalidMessage>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| InvalidMessage::field(field, error.to_string()))
}

/// Takes a message field that must be there.
///
/// # Errors
/// The field's name, when it is absent.
pub fn require<T>(field: &str, value: Option<T>) -> Result<T, InvalidMessage> {
    value.ok_or_else(|| InvalidMessage::field(field, "is missing"))
}

/// Empty text means "not given" on the wire.
fn optional(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

macro_rules! wire_enum {
    ($model:ty, $wire:ty, $field:literal, { $($m:ident <=> $w:ident),* $(,)? }) => {
        impl From<$model> for $wire {
            fn from(value: $model) -> Self {
                match value { $(<$model>::$m => <$wire>::$w),* }
            }
        }
        impl TryFrom<$wire> for $model {
            type Error = $crate::convert::InvalidMessage;
            fn try_from(value: $wire) -> Result<Self, Self::Error> {
                match value {
                    $(<$wire>::$w => Ok(<$model>::$m),)*
                    <$wire>::Unspecified => Err($crate::convert::InvalidMessage::field($field, "is missing")),
                }
            }
        }
        impl $crate::convert::WireEnum for $model {
            fn from_wire(number: i32) -> Result<Self, $crate::convert::InvalidMessage> {
                <$wire>::try_from(number)
                    .map_err(|_| $crate::convert::InvalidMessage::field($field, format!("{number} is not a known value")))?
                    .try_into()
            }
            fn to_wire(self) -> i32 {
                <$wire>::from(self) as i32
            }
        }
    };
}
use wire_enum;

/// A model enum that is an `i32` on the wire.
pub trait WireEnum: Sized {
    /// Reads the number.
    ///
    /// # Errors
    /// Unknown and unspecified numbers, under the name of the enum's field.
    fn from_wire(number: i32) -> Result<Self, InvalidMessage>;
    /// The number that stands for it.
    fn to_wire(self) -> i32;
}
