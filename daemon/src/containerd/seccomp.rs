//! The system calls that a container may make.
//!
//! An allow-list: what is not named fails with EPERM, and calls newer than
//! the list with ENOSYS (runc adds that). Left out on purpose: everything
//! that administers the kernel (modules, kexec, clocks, swap, quota), mounts,
//! other processes' memory, BPF, perf, userfaultfd, io_uring, keyrings.

use serde_json::{Value, json};

/// `clone(2)` flags that make namespaces: all of `CLONE_NEW*`
/// (include/uapi/linux/sched.h).
const CLONE_NEW_MASK: u64 = 0x7E02_0000;
/// ENOSYS: lets the C library fall back from `clone3` to `clone`, whose flags
/// a filter can read.
const ENOSYS: u32 = 38;
/// EPERM.
const EPERM: u32 = 1;

/// Socket families: unix, IPv4, IPv6, netlink. Not vsock, which no network
/// namespace bounds, nor the kernel's crypto and others that nobody asked for.
const SOCKET_FAMILIES: [u32; 4] = [1, 2, 10, 16];

/// Files and directories.
#[rustfmt::skip]
const FILES: &[&str] = &[
    "access", "chdir", "chmod", "chown", "close", "close_range", "copy_file_range", "creat", "dup", "dup2", "dup3",
    "faccessat", "faccessat2", "fadvise64", "fallocate", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown",
    "fchownat", "fcntl", "fdatasync", "fgetxattr", "flistxattr", "flock", "fremovexattr", "fsetxattr", "fstat",
    "fstatfs", "fsync", "ftruncate", "futimesat", "getcwd", "getdents", "getdents64", "getxattr", "ioctl", "lchown",
    "lgetxattr", "link", "linkat", "listxattr", "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat",
    "mkdir", "mkdirat", "mknod", "mknodat", "name_to_handle_at", "newfstatat", "open", "openat", "openat2",
    "pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink",
    "readlinkat", "readv", "removexattr", "rename", "renameat", "renameat2", "rmdir", "sendfile", "setxattr",
    "splice", "stat", "statfs", "statx", "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "tee",
    "truncate", "umask", "unlink", "unlinkat", "utime", "utimensat", "utimes", "vmsplice", "write", "writev",
];
/// Memory.
#[rustfmt::skip]
const MEMORY: &[&str] = &[
    "brk", "get_mempolicy", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret", "mincore",
    "mlock", "mlock2", "mlockall", "mmap", "mprotect", "mremap", "mseal", "msync", "munlock", "munlockall",
    "munmap", "pkey_alloc", "pkey_free", "pkey_mprotect", "remap_file_pages", "set_mempolicy",
];
/// Processes, threads, signals.
#[rustfmt::skip]
const PROCESSES: &[&str] = &[
    "alarm", "arch_prctl", "capget", "capset", "execve", "execveat", "exit", "exit_group", "fork", "futex",
    "futex_requeue", "futex_wait", "futex_waitv", "futex_wake", "get_robust_list", "get_thread_area", "getegid",
    "geteuid", "getgid", "getgroups", "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getresgid",
    "getresuid", "getrlimit", "getrusage", "getsid", "gettid", "getuid", "ioprio_get", "ioprio_set", "kcmp", "kill",
    "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "pause", "personality", "pidfd_open",
    "pidfd_send_signal", "prctl", "prlimit64", "ptrace", "restart_syscall", "rseq", "rt_sigaction", "rt_sigpending",
    "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam",
    "sched_getscheduler", "sched_rr_get_interval", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "seccomp", "set_robust_list", "set_thread_area", "set_tid_address",
    "setfsgid", "setfsuid", "setgid", "setgroups", "setpgid", "setpriority", "setregid", "setresgid", "setresuid",
    "setreuid", "setrlimit", "setsid", "setuid", "sigaltstack", "signalfd", "signalfd4", "tgkill", "time", "times",
    "tkill", "vfork", "wait4", "waitid",
];
/// Waiting, timers, events.
#[rustfmt::skip]
const EVENTS: &[&str] = &[
    "clock_getres", "clock_gettime", "clock_nanosleep", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait",
    "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2", "fanotify_mark", "getitimer", "gettimeofday",
    "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "io_cancel", "io_destroy",
    "io_getevents", "io_pgetevents", "io_setup", "io_submit", "nanosleep", "poll", "ppoll", "pselect6", "select",
    "setitimer", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime",
    "timerfd_create", "timerfd_gettime", "timerfd_settime",
];
/// Sockets, pipes, System V IPC, message queues.
#[rustfmt::skip]
const COMMUNICATION: &[&str] = &[
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "mq_getsetattr",
    "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink", "msgctl", "msgget", "msgrcv", "msgsnd",
    "pipe", "pipe2", "recvfrom", "recvmmsg", "recvmsg", "semctl", "semget", "semop", "semtimedop", "sendmmsg",
    "sendmsg", "sendto", "setsockopt", "shmat", "shmctl", "shmdt", "shmget", "shutdown", "socketpair",
];
/// Facts.
const FACTS: &[&str] = &["getcpu", "getrandom", "sysinfo", "uname"];
/// What a browser's own sandbox needs on top: namespaces of its own, and a
/// root directory of its own inside them.
const NESTED_NAMESPACES: &[&str] = &["chroot", "clone", "unshare"];

/// The `linux.seccomp` part of an OCI spec.
#[must_use]
pub fn profile(nested_user_namespaces: bool) -> Value {
    let groups = [FILES, MEMORY, PROCESSES, EVENTS, COMMUNICATION, FACTS];
    let mut rules: Vec<Value> =
        groups.iter().map(|names| json!({ "names": names, "action": "SCMP_ACT_ALLOW" })).collect();
    rules.extend(SOCKET_FAMILIES.map(|family| {
        let is_family = json!([{ "index": 0, "value": family, "op": "SCMP_CMP_EQ" }]);
        json!({ "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": is_family })
    }));
    rules.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }));
    rules.push(if nested_user_namespaces {
        json!({ "names": NESTED_NAMESPACES, "action": "SCMP_ACT_ALLOW" })
    } else {
        let no_namespace = json!([{ "index": 0, "value": CLONE_NEW_MASK, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }]);
        json!({ "names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": no_namespace })
    });
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": architectures(),
        "syscalls": rules,
    })
}

/// This machine's architecture and, where it has one, its 32-bit companion:
/// calls by another table would pass the numbers of the list.
fn architectures() -> &'static [&'static str] {
    match std::env::consts::ARCH {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(profile: &Value, action: &str) -> Vec<String> {
        let rules = profile["syscalls"].as_array().unwrap().iter().filter(|r| r["action"] == action);
        rules.flat_map(|r| r["names"].as_array().unwrap().clone()).map(|n| n.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn what_administers_the_kernel_is_never_allowed() {
        for nested in [false, true] {
            let allowed = names(&profile(nested), "SCMP_ACT_ALLOW");
            for call in [
                "mount",
                "umount2",
                "move_mount",
                "open_tree",
                "fsopen",
                "pivot_root",
                "setns",
                "bpf",
                "init_module",
                "finit_module",
                "kexec_load",
                "reboot",
                "swapon",
                "settimeofday",
                "clock_settime",
                "perf_event_open",
                "userfaultfd",
                "io_uring_setup",
                "keyctl",
                "add_key",
                "process_vm_readv",
                "process_vm_writev",
                "open_by_handle_at",
                "quotactl",
                "syslog",
                "acct",
                "iopl",
                "ioperm",
                "clone3",
                "pidfd_getfd",
            ] {
                assert!(!allowed.iter().any(|a| a == call), "{call}");
            }
        }
    }

    #[test]
    fn namespaces_are_allowed_only_where_the_profile_says_so() {
        let allowed = |nested| names(&profile(nested), "SCMP_ACT_ALLOW");
        assert!(!allowed(false).contains(&"unshare".to_owned()));
        assert!(allowed(true).contains(&"unshare".to_owned()));
    }

    #[test]
    fn sockets_are_allowed_by_family_only() {
        let profile = profile(true);
        let rules = profile["syscalls"].as_array().unwrap();
        let sockets: Vec<_> = rules.iter().filter(|r| r["names"][0] == "socket").collect();
        assert_eq!(sockets.len(), SOCKET_FAMILIES.len());
        assert!(sockets.iter().all(|r| r["args"][0]["value"] != 40), "vsock");
        assert!(
            !rules.iter().any(|r| r["args"].is_null() && r["names"].as_array().unwrap().contains(&"socket".into()))
        );
    }

    #[test]
    fn no_call_is_named_twice() {
        let mut all = names(&profile(false), "SCMP_ACT_ALLOW");
        all.retain(|name| name != "socket");
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
