//! Whether the kernel's clock is disciplined.

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
