//! Time lost by waiting.

use crate::model::{Pressure, Stall};
use crate::types as wire;

impl From<Stall> for wire::Stall {
    fn from(s: Stall) -> Self {
        Self { some_avg10_ppm: s.some_avg10_ppm, full_avg10_ppm: s.full_avg10_ppm }
    }
}

impl From<wire::Stall> for Stall {
    fn from(s: wire::Stall) -> Self {
        Self { some_avg10_ppm: s.some_avg10_ppm, full_avg10_ppm: s.full_avg10_ppm }
    }
}

impl From<Pressure> for wire::Pressure {
    fn from(p: Pressure) -> Self {
        Self { cpu: p.cpu.map(Into::into), memory: p.memory.map(Into::into), io: p.io.map(Into::into) }
    }
}

impl From<wire::Pressure> for Pressure {
    fn from(p: wire::Pressure) -> Self {
        Self { cpu: p.cpu.map(Into::into), memory: p.memory.map(Into::into), io: p.io.map(Into::into) }
    }
}
