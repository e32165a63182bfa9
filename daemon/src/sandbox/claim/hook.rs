//! Waking the entry point's hook, and its answer.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use roost_proto::id::ClaimId;
use tokio::net::unix::pipe;

/// Longest line that an answer can be: an id, a space and a status.
const MAX_LINE_BYTES: usize = 32;

/// Why a hook gave no exit status.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// A FIFO of the claim's directory cannot be used.
    #[error("cannot {operation} {}", path.display())]
    Fifo {
        /// What was tried.
        operation: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It said something else.
    #[error("it said {text:?} instead of the claim's id and an exit status")]
    Malformed {
        /// What it said, cut to what an answer can be.
        text: String,
    },
    /// It said nothing.
    #[error("there was no answer within {timeout_ms} ms")]
    Timeout {
        /// How long was waited.
        timeout_ms: u128,
    },
}

/// Wakes the hook of a claim and waits for its exit status.
///
/// Both FIFOs are opened for reading and writing, so that neither side has to
/// be there first. Cancel-safe: a call that is given up leaves at most a line
/// that the next one takes away.
///
/// # Errors
/// See [`HookError`].
pub async fn call_hook(dir: &Path, claim: &ClaimId, timeout: Duration) -> Result<i32, HookError> {
    let failed = |operation, name: &str| {
        let path = dir.join(name);
        move |source| HookError::Fifo { operation, path, source }
    };
    let open = || pipe::OpenOptions::new();
    let status = open().read_write(true).open_receiver(dir.join("status")).map_err(failed("open", "status"))?;
    let wake = open().read_write(true).open_sender(dir.join("wait")).map_err(failed("open", "wait"))?;
    // What an earlier call left.
    while matches!(status.try_read(&mut [0; 512]), Ok(1..)) {}
    let call = async {
        write(&wake, format!("{claim}\n").as_bytes()).await.map_err(failed("write", "wait"))?;
        answer(&status, claim, failed("read", "status")).await
    };
    let waited = tokio::time::timeout(timeout, call).await;
    waited.unwrap_or(Err(HookError::Timeout { timeout_ms: timeout.as_millis() }))
}

/// One line, less than the size that a pipe takes whole.
async fn write(wake: &pipe::Sender, line: &[u8]) -> io::Result<()> {
    loop {
        wake.writable().await?;
        match wake.try_write(line) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// The first answer to this claim. One to another claim came too late.
async fn answer(
    status: &pipe::Receiver,
    claim: &ClaimId,
    failed: impl FnOnce(io::Error) -> HookError,
) -> Result<i32, HookError> {
    let mut heard = Vec::new();
    loop {
        if let Err(error) = status.readable().await {
            return Err(failed(error));
        }
        // The writer is a process of the sandbox: what it may make us keep is
        // bounded.
        let mut chunk = [0; MAX_LINE_BYTES];
        match status.try_read(&mut chunk) {
            Ok(count) => heard.extend(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(failed(error)),
        }
        while let Some(end) = heard.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = heard.drain(..=end).collect();
            match parse(&line[..end]) {
                Some((id, code)) if id == *claim => return Ok(code),
                Some(_) => {}
                None => return Err(malformed(&line[..end])),
            }
        }
        if heard.len() >= MAX_LINE_BYTES {
            return Err(malformed(&heard));
        }
    }
}

/// "<claim id> <exit status>".
fn parse(line: &[u8]) -> Option<(ClaimId, i32)> {
    let (id, code) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let code: u8 = code.parse().ok()?;
    Some((id.parse().ok()?, code.into()))
}

fn malformed(heard: &[u8]) -> HookError {
    HookError::Malformed { text: String::from_utf8_lossy(&heard[..heard.len().min(MAX_LINE_BYTES)]).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const SOON: Duration = Duration::from_secs(20);

    fn dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["wait", "status"] {
            nix::unistd::mkfifo(&dir.path().join(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
        dir
    }

    /// The hook's side, as a shell plays it.
    fn shell(dir: &Path, script: &str) -> std::process::Child {
        Command::new("sh").args(["-c", script]).current_dir(dir).spawn().unwrap()
    }

    #[tokio::test]
    async fn a_hook_that_waits_and_one_that_comes_later_both_answer() {
        for first in [true, false] {
            let (dir, claim) = (dir(), ClaimId::random());
            let script = "read -r claim <wait; echo \"$claim 7\" >status";
            let start = || shell(dir.path(), script);
            let mut child = first.then(start);
            let call = call_hook(dir.path(), &claim, SOON);
            let late = async {
                tokio::task::yield_now().await;
                child.get_or_insert_with(start);
            };
            assert_eq!(tokio::join!(call, late).0.unwrap(), 7);
            assert!(child.unwrap().wait().unwrap().success());
        }
    }

    #[tokio::test]
    async fn the_answer_to_an_earlier_claim_is_passed_over() {
        let (dir, claim) = (dir(), ClaimId::random());
        let earlier = ClaimId::random();
        let script = format!("read -r claim <wait; echo \"{earlier} 1\" >status; echo \"$claim 0\" >status");
        let mut child = shell(dir.path(), &script);
        assert_eq!(call_hook(dir.path(), &claim, SOON).await.unwrap(), 0);
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn anything_else_is_refused_and_bounded() {
        for said in ["yes", "clm-x 0", "$claim 256", "$claim", "$(head -c 100000 /dev/zero | tr '\\0' x)"] {
            let (dir, claim) = (dir(), ClaimId::random());
            let mut child = shell(dir.path(), &format!("read -r claim <wait; echo \"{said}\" >status"));
            let result = call_hook(dir.path(), &claim, SOON).await;
            assert!(matches!(result, Err(HookError::Malformed { .. })), "{said}: {result:?}");
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_meets_the_deadline_and_leaves_no_stale_line() {
        let (dir, claim) = (dir(), ClaimId::random());
        let error = call_hook(dir.path(), &claim, Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, HookError::Timeout { timeout_ms: 50 }), "{error}");
    }
}
