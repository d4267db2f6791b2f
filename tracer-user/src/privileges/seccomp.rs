//! System calls that are refused with EPERM: to the daemon what no part of it does once it has started, to the helper
//! everything that it does not need. For the calling thread and those that it makes from then on.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter, sock_filter,
};

/// Rules by the number of a system call; no rule for one matches whatever its arguments are.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// What the daemon never does: run programs, enter namespaces, mount, change the kernel, the clock or other processes.
const DENIED: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mknodat,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_settimeofday,
    libc::SYS_setuid,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
];

/// What the daemon asks of bpf(2) once everything is attached (`include/uapi/linux/bpf.h`): to look up, update, delete and
/// walk entries of maps, one by one or many at once, and how often a program was skipped. No program and no map is made.
const BPF_COMMANDS: [u32; 8] = [1, 2, 3, 4, 15, 24, 25, 26];

/// What the helper needs: to be asked, to enter, to open, to answer, and what its runtime does for that.
const HELPER: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sendmsg,
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_writev,
];

/// The filter could not be installed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SeccompError(String);

impl From<seccompiler::Error> for SeccompError {
    fn from(error: seccompiler::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<seccompiler::BackendError> for SeccompError {
    fn from(error: seccompiler::BackendError) -> Self {
        Self(error.to_string())
    }
}

/// For the daemon, once everything is attached.
pub fn confine_daemon() -> Result<(), SeccompError> {
    apply_filter(&program(daemon_rules()?, SeccompAction::Allow, errno(libc::EPERM))?)?;
    // What it makes new threads with cannot be looked into; without it the C library uses one that can.
    let clone3 = Rules::from([(libc::SYS_clone3, Vec::new())]);
    apply_filter(&program(clone3, SeccompAction::Allow, errno(libc::ENOSYS))?)?;
    refuse_other_numbers()
}

/// For the helper.
pub fn confine_helper() -> Result<(), SeccompError> {
    apply_filter(&program(helper_rules()?, errno(libc::EPERM), SeccompAction::Allow)?)?;
    Ok(())
}

fn errno(errno: i32) -> SeccompAction {
    SeccompAction::Errno(errno.unsigned_abs())
}

fn program(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<BpfProgram, SeccompError> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, otherwise, matched, arch)?.try_into()?)
}

fn daemon_rules() -> Result<Rules, SeccompError> {
    let mut rules: Rules = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    let other_commands = BPF_COMMANDS.map(|command| condition(0, SeccompCmpOp::Ne, u64::from(command)));
    let other_commands = other_commands.into_iter().collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_bpf, vec![SeccompRule::new(other_commands)?]);
    // A namespace of its own, of users above all, would give it every capability inside.
    let namespaces = [
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWUTS,
    ];
    let with_flag = |flag: i32| {
        let flag = u64::from(flag.unsigned_abs());
        SeccompRule::new(vec![condition(0, SeccompCmpOp::MaskedEq(flag), flag)?])
    };
    rules.insert(libc::SYS_clone, namespaces.into_iter().map(with_flag).collect::<Result<_, _>>()?);
    Ok(rules)
}

fn helper_rules() -> Result<Rules, SeccompError> {
    let mut rules: Rules = HELPER.iter().map(|call| (*call, Vec::new())).collect();
    let writing = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC).unsigned_abs();
    let reads = condition(2, SeccompCmpOp::MaskedEq(u64::from(writing)), 0)?;
    rules.insert(libc::SYS_openat, vec![SeccompRule::new(vec![reads])?]);
    let netlink = condition(0, SeccompCmpOp::Eq, u64::from(libc::AF_NETLINK.unsigned_abs()))?;
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(vec![netlink])?]);
    let network = condition(1, SeccompCmpOp::Eq, u64::from(libc::CLONE_NEWNET.unsigned_abs()))?;
    rules.insert(libc::SYS_setns, vec![SeccompRule::new(vec![network])?]);
    Ok(rules)
}

fn condition(argument: u8, is: SeccompCmpOp, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, is, value)
}

/// Where the kernel knows every system call by a second number as well (x32), the rules above do not see it.
fn refuse_other_numbers() -> Result<(), SeccompError> {
    const X32: u32 = 0x4000_0000;
    let statement = |code: u32, k: u32, jf: u8| sock_filter { code: u16::try_from(code).unwrap_or(0), jt: 0, jf, k };
    let numbers = [
        // The number is the first word of what a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, X32, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs(), 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
    ];
    apply_filter(&numbers)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io;

    use super::*;

    /// Both on a thread that ends with it: a filter stays.
    fn confined(confine: fn() -> Result<(), SeccompError>, then: fn()) {
        let thread = std::thread::spawn(move || {
            confine().unwrap();
            then();
        });
        thread.join().unwrap();
    }

    fn errno_of(outcome: libc::c_long) -> Option<i32> {
        (outcome < 0).then(|| io::Error::last_os_error().raw_os_error()).flatten()
    }

    #[test]
    fn the_daemon_works_and_does_no_harm() {
        confined(confine_daemon, || {
            let refused = Some(libc::EPERM);
            // SAFETY: none of these has an argument that is a pointer, or they are refused before it is looked at.
            unsafe {
                assert_eq!(errno_of(libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER)), refused);
                assert_eq!(errno_of(libc::syscall(libc::SYS_setns, -1, 0)), refused);
                assert_eq!(errno_of(libc::syscall(libc::SYS_ptrace, 0, 0, 0, 0)), refused);
                assert_eq!(errno_of(libc::syscall(libc::SYS_clone, libc::CLONE_NEWUSER, 0, 0, 0, 0)), refused);
                assert_eq!(errno_of(libc::syscall(libc::SYS_clone3, 0, 0)), Some(libc::ENOSYS));
                // To load a program; to look something up in no map.
                assert_eq!(errno_of(libc::syscall(libc::SYS_bpf, 5, 0, 0)), refused);
                assert_ne!(errno_of(libc::syscall(libc::SYS_bpf, 1, 0, 0)), refused);
            }
            assert_eq!(std::process::Command::new("true").spawn().unwrap_err().raw_os_error(), refused);
            // Threads, files, sockets.
            assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
            assert!(File::create(tempfile::tempdir().unwrap().path().join("x")).is_ok());
            assert!(std::net::TcpListener::bind("127.0.0.1:0").is_ok());
        });
    }

    #[test]
    fn the_helper_opens_to_read_and_nothing_else() {
        let outcome = std::thread::spawn(|| {
            confine_helper().unwrap();
            let refused = |error: io::Error| error.raw_os_error() == Some(libc::EPERM);
            let written = File::create("/dev/null").err().is_some_and(refused);
            let bound = std::net::TcpListener::bind("127.0.0.1:0").err().is_some_and(refused);
            let read = File::open(std::path::Path::new("/proc").join("thread-self/net/sockstat")).is_ok();
            (read, written, bound)
        });
        assert_eq!(outcome.join().unwrap(), (true, true, true));
    }
}
