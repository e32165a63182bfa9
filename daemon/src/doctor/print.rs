//! A report for people, without a terminal's help: one line a check, what to
//! change below it.

use std::fmt::Write as _;

use roost_proto::model::{HostReport, Verdict};

/// The report as text that ends in a line break.
#[must_use]
pub fn text(report: &HostReport) -> String {
    let width = report.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in &report.checks {
        // Writing into a String cannot fail.
        let _infallible = writeln!(text, "{:<4}  {:<width$}  {}", check.verdict.as_str(), check.name, check.found);
        if !check.advice.is_empty() {
            let _infallible = writeln!(text, "      {:<width$}  -> {}", "", check.advice);
        }
    }
    let (failed, warned) = (report.count(Verdict::Fail), report.count(Verdict::Warn));
    let sum = match report.verdict() {
        Verdict::Ok => "this host is fit".to_owned(),
        Verdict::Warn => format!("this host is fit; {warned} to look at"),
        Verdict::Fail => format!("this host is not fit: {failed} to mend, {warned} to look at"),
    };
    let _infallible = writeln!(text, "\n{}: {sum} (judged for {} sandboxes)", report.hostname, report.sandboxes);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_proto::model::Check;

    #[test]
    fn every_check_has_a_line_and_advice_stands_below() {
        let check = |name: &str, verdict, advice: &str| Check {
            area: "kernel".into(),
            name: name.into(),
            verdict,
            found: "what is there".into(),
            advice: advice.into(),
        };
        let checks = vec![check("kernel", Verdict::Ok, ""), check("time", Verdict::Fail, "set it")];
        let report = HostReport {
            hostname: "n1".into(),
            kernel: "6.1".into(),
            daemon_version: "0.1.0".into(),
            sandboxes: 10,
            checks,
        };
        assert_eq!(
            text(&report),
            "ok    kernel  what is there\nfail  time    what is there\n              -> set it\n\n\
             n1: this host is not fit: 1 to mend, 0 to look at (judged for 10 sandboxes)\n"
        );
    }
}
