//! Reports of copies.

use crate::model::{CopyProblem, CopyReport};
use crate::node as wire;

impl From<CopyReport> for wire::CopyReport {
    fn from(report: CopyReport) -> Self {
        let problem = |p: CopyProblem| wire::CopyProblem { path: p.path, reason: p.reason };
        Self {
            files: report.files,
            directories: report.directories,
            links: report.links,
            bytes: report.bytes,
            problems: report.problems.into_iter().map(problem).collect(),
            problem_count: report.problem_count,
        }
    }
}

impl From<wire::CopyReport> for CopyReport {
    fn from(report: wire::CopyReport) -> Self {
        let problem = |p: wire::CopyProblem| CopyProblem { path: p.path, reason: p.reason };
        Self {
            files: report.files,
            directories: report.directories,
            links: report.links,
            bytes: report.bytes,
            problems: report.problems.into_iter().map(problem).collect(),
            problem_count: report.problem_count,
        }
    }
}
