//! What came of copying files into a sandbox or out of it.

use serde::{Deserialize, Serialize};

/// Problems that a report names; the others are counted.
const PROBLEMS_MAX: usize = 50;

/// Something that was not copied as it should be; the rest was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopyProblem {
    /// Its name in the archive.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What a copy moved, and what it did not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CopyReport {
    /// Files.
    pub files: u64,
    /// Directories that are of the copied tree.
    pub directories: u64,
    /// Symbolic links, and names more than the first of a file.
    pub links: u64,
    /// Content of the files, in bytes.
    pub bytes: u64,
    /// The first of what is not copied as it should be.
    #[serde(default)]
    pub problems: Vec<CopyProblem>,
    /// All of that.
    #[serde(default)]
    pub problem_count: u64,
}

impl CopyReport {
    /// Notes something that is not copied as it should be.
    pub fn problem(&mut self, path: &std::path::Path, reason: impl Into<String>) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(CopyProblem { path: path.display().to_string(), reason: reason.into() });
        }
    }
}
