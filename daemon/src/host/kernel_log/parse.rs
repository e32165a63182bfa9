//! Lines of the kernel's log about kills for want of memory. Pure.
//!
//! A kill is two records. The first names the cgroup and is left out when
//! there are many; the second is written after the kernel counted the kill:
//!
//! ```text
//! oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=C,mems_allowed=0,oom_memcg=/P,task_memcg=/P/C,task=N,pid=1,uid=2
//! Memory cgroup out of memory: Killed process 1 (N) total-vm:…kB, anon-rss:…kB, …
//! ```

use super::OomKill;

/// Facility of the kernel's own records; programs that write into the log get
/// another.
const KERNEL: u32 = 0;

/// One line that matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// The kernel chose a victim.
    Chosen(OomKill),
    /// It killed the process of this id.
    Killed(u32),
}

impl Line {
    /// Reads a record of `/dev/kmsg`; none if it is about something else.
    pub(super) fn parse(record: &str) -> Option<Self> {
        let (head, text) = record.split_once(';')?;
        let priority: u32 = head.split(',').next()?.parse().ok()?;
        if priority >> 3 != KERNEL {
            return None;
        }
        let message = text.lines().next()?;
        chosen(message).map(Self::Chosen).or_else(|| killed(message).map(Self::Killed))
    }
}

/// The name of the victim is its own choice and may hold commas: everything
/// else is taken from around it.
fn chosen(message: &str) -> Option<OomKill> {
    let rest = message.strip_prefix("oom-kill:constraint=")?;
    let (_, rest) = rest.split_once(",task_memcg=")?;
    let (rest, uid) = rest.rsplit_once(",uid=")?;
    uid.parse::<u32>().ok()?;
    let (rest, pid) = rest.rsplit_once(",pid=")?;
    let (cgroup, process) = rest.split_once(",task=")?;
    Some(OomKill { cgroup: cgroup.to_owned(), process: process.to_owned(), pid: pid.parse().ok()? })
}

fn killed(message: &str) -> Option<u32> {
    let rest = message.strip_prefix("Memory cgroup out of memory: Killed process ");
    let rest = rest.or_else(|| message.strip_prefix("Out of memory: Killed process "))?;
    let (pid, rest) = rest.split_once(' ')?;
    (rest.starts_with('(') && rest.contains(") total-vm:")).then_some(())?;
    pid.parse().ok()
}

/// Puts the two records of a kill together.
#[derive(Debug, Default)]
pub(super) struct Killing {
    chosen: Option<OomKill>,
}

impl Killing {
    /// The kill that this line completes.
    pub(super) fn next(&mut self, line: Line) -> Option<OomKill> {
        match line {
            Line::Chosen(kill) => {
                self.chosen = Some(kill);
                None
            }
            Line::Killed(pid) => self.chosen.take().filter(|kill| kill.pid == pid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 6.18 wrote them.
    const CHOSEN: &str = "6,812,4053311,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=workload,\
        mems_allowed=0,oom_memcg=/roost/sbx-0123456789abcdef,task_memcg=/roost/sbx-0123456789abcdef/workload,\
        task=hog,pid=4711,uid=1049576\n SUBSYSTEM=x\n";
    const KILLED: &str = "3,813,4053320,-;Memory cgroup out of memory: Killed process 4711 (hog) total-vm:300000kB, \
        anon-rss:250000kB, file-rss:1024kB, shmem-rss:0kB, UID:1049576 pgtables:600kB oom_score_adj:500\n";

    fn kills(records: &[&str]) -> Vec<OomKill> {
        let mut killing = Killing::default();
        records.iter().filter_map(|record| killing.next(Line::parse(record)?)).collect()
    }

    fn hog(process: &str) -> OomKill {
        OomKill { cgroup: "/roost/sbx-0123456789abcdef/workload".into(), process: process.into(), pid: 4711 }
    }

    #[test]
    fn the_two_records_of_a_kill_name_process_and_cgroup() {
        assert_eq!(kills(&["6,1,1,-;eth0: link up\n", CHOSEN, KILLED]), [hog("hog")]);
        let global = KILLED.replace("Memory cgroup out", "Out");
        assert_eq!(kills(&[CHOSEN, &global]), [hog("hog")]);
    }

    #[test]
    fn a_kill_without_its_details_is_nobodys() {
        assert_eq!(kills(&[KILLED]), []);
        assert_eq!(kills(&[CHOSEN, &KILLED.replace("4711", "4712"), KILLED]), []);
    }

    #[test]
    fn a_process_cannot_lie_about_its_cgroup_by_its_name() {
        let named = |name: &str| CHOSEN.replace("task=hog", &format!("task={name}"));
        for name in [",task=x,pid=9", "a,uid=0", ",task_memcg=/x", ""] {
            assert_eq!(kills(&[&named(name), KILLED]), [hog(name)], "{name}");
        }
    }

    #[test]
    fn what_a_program_wrote_into_the_log_does_not_count() {
        // 14 = facility "user", severity "info".
        assert_eq!(kills(&[&CHOSEN.replacen("6,", "14,", 1), KILLED]), []);
        for broken in ["", ";", "6", "x;oom-kill:", "6,1;oom-kill:constraint=,task_memcg=/a,task=b,pid=x,uid=1"] {
            assert_eq!(Line::parse(broken), None, "{broken}");
        }
    }
}
