//! Time lost by waiting for CPU, memory and disks (PSI), where the kernel
//! measures it: Documentation/accounting/psi.rst.

use std::path::Path;

use roost_proto::model::{Pressure, Stall};

/// Of the whole node; none where the kernel measures nothing.
#[must_use]
pub fn of_node() -> Option<Pressure> {
    read(|resource| Path::new("/proc/pressure").join(resource))
}

/// Of a cgroup of v2.
#[must_use]
pub fn of_cgroup(dir: &Path) -> Option<Pressure> {
    read(|resource| dir.join(format!("{resource}.pressure")))
}

fn read(path: impl Fn(&str) -> std::path::PathBuf) -> Option<Pressure> {
    // Not built in, or switched off at boot (the read says EOPNOTSUPP): absent.
    let stall = |resource| parse(&std::fs::read_to_string(path(resource)).ok()?);
    Pressure { cpu: stall("cpu"), memory: stall("memory"), io: stall("io") }.if_measured()
}

/// Reads lines such as `some avg10=1.53 avg60=… total=…`.
fn parse(text: &str) -> Option<Stall> {
    let avg10 = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        ppm(line.split(' ').find_map(|field| field.strip_prefix("avg10="))?)
    };
    Some(Stall { some_avg10_ppm: avg10("some")?, full_avg10_ppm: avg10("full") })
}

/// A percentage with two decimals, in parts per million.
fn ppm(percent: &str) -> Option<u32> {
    let (whole, hundredths) = percent.split_once('.')?;
    if hundredths.len() != 2 {
        return None;
    }
    let hundredths = whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(hundredths.parse().ok()?)?;
    hundredths.checked_mul(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read_and_a_missing_one_is_absent() {
        let text = "some avg10=12.34 avg60=0.00 avg300=0.00 total=5\nfull avg10=0.05 avg60=0.00 avg300=0.00 total=1\n";
        assert_eq!(parse(text), Some(Stall { some_avg10_ppm: 123_400, full_avg10_ppm: Some(500) }));
        let cpu = "some avg10=100.00 avg60=0.00 avg300=0.00 total=5\n";
        assert_eq!(parse(cpu), Some(Stall { some_avg10_ppm: 1_000_000, full_avg10_ppm: None }));
    }

    #[test]
    fn what_is_not_measured_is_absent_and_not_zero() {
        assert_eq!(parse(""), None);
        assert_eq!(parse("some avg10=x total=1"), None);
        assert_eq!(of_cgroup(Path::new("/nowhere")), None);
    }
}
