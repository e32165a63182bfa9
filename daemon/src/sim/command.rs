//! What an operator can have a fleet do, one line each. Pure.

use std::str::FromStr;

/// One line on standard input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Command {
    /// Say how the fleet does.
    Status,
    /// Break the connections of this share of the nodes, 0 to 1.
    Disconnect(f64),
    /// Kill the daemons of this share of the nodes and start them again.
    Restart(f64),
    /// End so many running workloads with exit code 1.
    Crash(u32),
    /// Have the kernel kill so many running workloads for memory.
    Oom(u32),
}

/// A line that is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no command: write status, disconnect SHARE, restart SHARE (0 to 1), crash COUNT or oom COUNT")]
pub struct ParseCommandError(String);

impl FromStr for Command {
    type Err = ParseCommandError;

    fn from_str(line: &str) -> Result<Self, ParseCommandError> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let share = |text: &str| text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
        let command = match words[..] {
            ["status"] => Some(Self::Status),
            ["disconnect", share_text] => share(share_text).map(Self::Disconnect),
            ["restart", share_text] => share(share_text).map(Self::Restart),
            ["crash", count] => count.parse().ok().map(Self::Crash),
            ["oom", count] => count.parse().ok().map(Self::Oom),
            _ => None,
        };
        command.ok_or_else(|| ParseCommandError(line.trim().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_read_and_anything_else_is_refused_with_the_list() {
        assert_eq!("status".parse(), Ok(Command::Status));
        assert_eq!(" disconnect 0.1 ".parse(), Ok(Command::Disconnect(0.1)));
        assert_eq!("restart 1".parse(), Ok(Command::Restart(1.0)));
        assert_eq!("crash 3".parse(), Ok(Command::Crash(3)));
        assert_eq!("oom 7".parse(), Ok(Command::Oom(7)));
        for bad in ["", "disconnect", "disconnect 2", "restart NaN", "crash -1", "reboot 1"] {
            let error = bad.parse::<Command>().unwrap_err();
            assert!(error.to_string().contains("disconnect SHARE"), "{error}");
        }
    }
}
