//! The kernel's clocks.

#![allow(unsafe_code)]

use super::Error;

/// Whether something (chrony, ntpd, the hypervisor) keeps the clock right.
///
/// # Errors
/// When the kernel does not say.
pub fn is_synchronised() -> Result<bool, Error> {
    // SAFETY: all zeros is a valid timex, and mode 0 only reads; the kernel
    // writes within the struct.
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex)
    };
    if state < 0 {
        return Err(Error::call("ask for the state of the clock", std::io::Error::last_os_error()));
    }
    Ok(state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0)
}

/// The kernel's monotonic clock, in milliseconds: nobody can set it, and all
/// processes of one boot read the same.
///
/// # Errors
/// When the kernel does not say.
pub fn monotonic_ms() -> Result<u64, Error> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec into the one that is given.
    if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) } != 0 {
        return Err(Error::call("read the monotonic clock", std::io::Error::last_os_error()));
    }
    let (seconds, nanos) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    Ok(seconds * 1000 + nanos / 1_000_000)
}
