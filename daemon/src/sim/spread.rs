//! Times that vary from one time to the next. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Longest mean, in milliseconds: a start may take ten minutes at most.
const MEAN_MAX_MS: u32 = 600_000;
/// Uniform numbers whose sum is as good as normal, with a deviation of one.
const ADDENDS: u32 = 12;

/// A time around a mean, written `240±60` or `240+-60` (milliseconds), or
/// `240` for always the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Spread {
    /// Mean, in milliseconds.
    pub mean_ms: u32,
    /// Standard deviation of the normal distribution, in milliseconds.
    pub deviation_ms: u32,
}

/// A text that is no spread.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no time: write milliseconds as \"240±60\" (mean and deviation) or \"240\", at most {MEAN_MAX_MS}")]
pub struct ParseSpreadError(String);

impl Spread {
    /// A time drawn with `random`, which gives numbers in 0..1; never below
    /// zero.
    pub fn draw(self, mut random: impl FnMut() -> f64) -> Duration {
        let sum: f64 = (0..ADDENDS).map(|_| random()).sum();
        let normal = sum - f64::from(ADDENDS) / 2.0;
        let ms = f64::from(self.mean_ms) + normal * f64::from(self.deviation_ms);
        Duration::from_secs_f64(ms.max(0.0) / 1000.0)
    }
}

impl FromStr for Spread {
    type Err = ParseSpreadError;

    fn from_str(text: &str) -> Result<Self, ParseSpreadError> {
        let error = || ParseSpreadError(text.into());
        let (mean, deviation) = text.split_once('±').or_else(|| text.split_once("+-")).unwrap_or((text, "0"));
        let number = |part: &str| part.trim().parse::<u32>().map_err(|_| error());
        let spread = Self { mean_ms: number(mean)?, deviation_ms: number(deviation)? };
        let is_right = spread.mean_ms <= MEAN_MAX_MS && spread.deviation_ms <= MEAN_MAX_MS;
        is_right.then_some(spread).ok_or_else(error)
    }
}

impl TryFrom<String> for Spread {
    type Error = ParseSpreadError;

    fn try_from(text: String) -> Result<Self, ParseSpreadError> {
        text.parse()
    }
}

impl From<Spread> for String {
    fn from(spread: Spread) -> Self {
        spread.to_string()
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.deviation_ms {
            0 => write!(f, "{}", self.mean_ms),
            deviation => write!(f, "{}±{deviation}", self.mean_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_spread_is_read_in_both_spellings_and_written_in_one() {
        let spread = Spread { mean_ms: 240, deviation_ms: 60 };
        assert_eq!("240±60".parse(), Ok(spread));
        assert_eq!("240 +- 60".parse(), Ok(spread));
        assert_eq!(spread.to_string(), "240±60");
        assert_eq!("7".parse::<Spread>().unwrap().to_string(), "7");
        for bad in ["", "a", "1±", "-1", "600001", "1±2±3"] {
            assert!(bad.parse::<Spread>().is_err(), "{bad}");
        }
    }

    #[test]
    fn without_deviation_it_is_always_the_mean() {
        assert_eq!(Spread { mean_ms: 5, deviation_ms: 0 }.draw(|| 0.9), Duration::from_millis(5));
    }

    proptest! {
        #[test]
        fn a_drawn_time_lies_within_six_deviations_and_is_never_negative(
            mean_ms in 0..1000_u32, deviation_ms in 0..500_u32, random in prop::collection::vec(0.0..1.0, 12)
        ) {
            let mut random = random.into_iter();
            let drawn = Spread { mean_ms, deviation_ms }.draw(|| random.next().unwrap());
            prop_assert!(drawn <= Duration::from_millis((mean_ms + 6 * deviation_ms).into()));
        }
    }
}
