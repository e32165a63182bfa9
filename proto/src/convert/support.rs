//! Reports of hosts, records of starts, parts of support bundles.

use super::{InvalidMessage, WireEnum, optional, parse, require, wire_enum};
use crate::model::{Check, HostReport, LeftOut, StartRecord, SupportPart, Verdict};
use crate::node as wire;

wire_enum!(Verdict, wire::Verdict, "checks.verdict", { Ok <=> Ok, Warn <=> Warn, Fail <=> Fail });

impl From<HostReport> for wire::HostReport {
    fn from(report: HostReport) -> Self {
        let check = |c: Check| wire::Check {
            area: c.area,
            name: c.name,
            verdict: c.verdict.to_wire(),
            found: c.found,
            advice: c.advice,
        };
        Self {
            hostname: report.hostname,
            kernel: report.kernel,
            daemon_version: report.daemon_version,
            sandboxes: report.sandboxes,
            checks: report.checks.into_iter().map(check).collect(),
        }
    }
}

impl TryFrom<wire::HostReport> for HostReport {
    type Error = InvalidMessage;

    fn try_from(report: wire::HostReport) -> Result<Self, InvalidMessage> {
        let check = |c: wire::Check| {
            Ok(Check {
                area: c.area,
                name: c.name,
                verdict: Verdict::from_wire(c.verdict)?,
                found: c.found,
                advice: c.advice,
            })
        };
        Ok(Self {
            hostname: report.hostname,
            kernel: report.kernel,
            daemon_version: report.daemon_version,
            sandboxes: report.sandboxes,
            checks: report.checks.into_iter().map(check).collect::<Result<_, InvalidMessage>>()?,
        })
    }
}

impl From<StartRecord> for wire::StartRecord {
    fn from(start: StartRecord) -> Self {
        Self {
            sandbox_id: start.sandbox_id.to_string(),
            name: start.name.map(|name| name.to_string()).unwrap_or_default(),
            template: start.template.to_string(),
            ended_at_unix_ms: start.ended_at_unix_ms,
            failure: start.failure.unwrap_or_default(),
            stages: start.stages.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::StartRecord> for StartRecord {
    type Error = InvalidMessage;

    fn try_from(start: wire::StartRecord) -> Result<Self, InvalidMessage> {
        Ok(Self {
            sandbox_id: parse("starts.sandbox_id", &start.sandbox_id)?,
            name: optional(start.name).map(|name| parse("starts.name", &name)).transpose()?,
            template: parse("starts.template", &start.template)?,
            ended_at_unix_ms: start.ended_at_unix_ms,
            failure: optional(start.failure),
            stages: start.stages.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<SupportPart> for wire::SupportPart {
    fn from(part: SupportPart) -> Self {
        use wire::support_part::Part;
        let part = match part {
            SupportPart::Begin { files } => Part::Begin(wire::SupportBegin { files }),
            SupportPart::Chunk { path, text } => Part::Chunk(wire::SupportChunk { path, text }),
            SupportPart::LeftOut(LeftOut { what, why }) => Part::LeftOut(wire::LeftOut { what, why }),
        };
        Self { part: Some(part) }
    }
}

impl TryFrom<wire::SupportPart> for SupportPart {
    type Error = InvalidMessage;

    fn try_from(part: wire::SupportPart) -> Result<Self, InvalidMessage> {
        use wire::support_part::Part;
        Ok(match require("part", part.part)? {
            Part::Begin(begin) => Self::Begin { files: begin.files },
            Part::Chunk(chunk) => Self::Chunk { path: chunk.path, text: chunk.text },
            Part::LeftOut(left) => Self::LeftOut(LeftOut { what: left.what, why: left.why }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SandboxId;
    use crate::model::{Stage, StageTiming};

    #[test]
    fn a_report_survives_the_wire_and_its_worst_check_counts() {
        let check = |name: &str, verdict| Check {
            area: "kernel".into(),
            name: name.into(),
            verdict,
            found: "5.10".into(),
            advice: String::new(),
        };
        let report = HostReport {
            hostname: "n1".into(),
            kernel: "5.10".into(),
            daemon_version: "0.1.0".into(),
            sandboxes: 9,
            checks: vec![check("a", Verdict::Ok), check("b", Verdict::Fail), check("c", Verdict::Warn)],
        };
        assert_eq!(report.verdict(), Verdict::Fail);
        assert_eq!(HostReport::try_from(wire::HostReport::from(report.clone())), Ok(report));
    }

    #[test]
    fn a_start_survives_the_wire() {
        let start = StartRecord {
            sandbox_id: SandboxId::random(),
            name: None,
            template: "desktop".parse().unwrap(),
            ended_at_unix_ms: 7,
            failure: Some("image-missing".into()),
            stages: vec![StageTiming { stage: Stage::Rootfs, begin_us: 5, duration_us: 6 }],
        };
        assert_eq!(start.total_us(), 11);
        assert_eq!(StartRecord::try_from(wire::StartRecord::from(start.clone())), Ok(start));
    }

    #[test]
    fn a_part_without_content_is_refused() {
        assert!(SupportPart::try_from(wire::SupportPart { part: None }).is_err());
        let part = SupportPart::Chunk { path: "log.txt".into(), text: "x".into() };
        assert_eq!(SupportPart::try_from(wire::SupportPart::from(part.clone())), Ok(part));
    }
}
