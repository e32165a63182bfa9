//! How many processes the kernel killed in a cgroup for want of memory.

use super::{Cgroups, Error, read_key};

impl Cgroups {
    /// Processes that were killed for want of memory in a cgroup since it was
    /// made; 0 if it is not there. On v1 those below it are not counted.
    ///
    /// # Errors
    /// When the counter cannot be read.
    pub fn oom_kills(&self, name: &str) -> Result<u64, Error> {
        let path = self.version.file("memory", &self.relative(name), "memory.oom_control", "memory.events");
        match read_key(&path, "oom_kill") {
            Err(Error::Path { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(0),
            result => result,
        }
    }
}
