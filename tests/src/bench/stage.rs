//! Where the benchmark runs: a network namespace and a mount namespace of its own, which end with this process.

use std::fs::{self, OpenOptions};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use serde_json::Value;

use crate::pace::patience;
use crate::program::{Finished, Program, command, finish, until};
use crate::sandbox::{Sandbox, socklife_binary};

/// Beside this program: both are of the same build.
const LOAD: &str = "bench-load";
const TRACEFS: &str = "/sys/kernel/tracing";
/// Most CPU time of a program that has nothing left to do, between two looks.
const STILL: Duration = Duration::from_micros(300);

/// The namespaces, and what is run in them.
pub struct Stage {
    sandbox: Sandbox,
    load: PathBuf,
}

impl Stage {
    /// Moves this thread into namespaces of its own.
    pub fn enter() -> Result<Self> {
        let load = std::env::current_exe()?.with_file_name(LOAD);
        ensure!(load.is_file(), "{} is missing: `cargo xtask bench` builds it", load.display());
        socklife_binary()?;
        let sandbox = Sandbox::enter()?;
        unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("keep mounts to ourselves")?;
        // The peers look for their tracepoint there.
        if !Path::new(TRACEFS).join("events").is_dir() {
            mount(Some("tracefs"), TRACEFS, Some("tracefs"), MsFlags::empty(), none).context("mount tracefs")?;
        }
        // What a round leaves in TIME_WAIT would be the next one's: the sockets end as they do elsewhere, and of what
        // the kernel keeps instead of them nothing is kept here.
        write_sysctl("net/ipv4/tcp_max_tw_buckets", "0")?;
        Ok(Self { sandbox, load })
    }

    /// The test harness' view of it.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// `bench-load` with these arguments, to be started.
    pub fn load_command(&self, args: &[String]) -> std::process::Command {
        let mut load = command(&self.load);
        load.args(args);
        load
    }

    /// `bench-load` with these arguments, to its end; what it measured.
    pub fn load(&self, args: &[String]) -> Result<Value> {
        let Finished { code, stdout, stderr } = finish(self.load_command(args))?;
        ensure!(code == Some(0), "{LOAD} {args:?} ended with {code:?}: {stderr}");
        serde_json::from_str(&stdout).with_context(|| format!("{LOAD} said {stdout:?}"))
    }
}

fn write_sysctl(name: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys").join(name);
    fs::write(&path, value).with_context(|| format!("set {}", path.display()))
}

/// Words for `bench-load`.
pub fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// CPU time that all threads of a process have used, those that have ended included.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?)).with_context(|| format!("clock of {pid}"))?;
    Ok(Duration::from(clock.now().with_context(|| format!("CPU time of {pid}"))?))
}

/// Waits until a program has nothing left to do: between two looks it uses next to no CPU.
pub fn until_still(pid: u32) -> Result<()> {
    let mut before = Duration::MAX;
    until("the tracer has nothing left to do", || {
        let now = cpu_time(pid)?;
        let used = now.checked_sub(before);
        before = now;
        Ok(match used {
            Some(used) if used <= STILL => Ok(()),
            used => Err(format!("used {used:?}")),
        })
    })
}

/// Lets time pass: where what is measured is what happens in that time.
pub fn pass(time: Duration) {
    let deadline = Instant::now() + time;
    while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        // It may return early.
        std::thread::park_timeout(left);
    }
}

/// Sockets that are there and do nothing.
pub struct Held {
    program: Program,
    sockets: u32,
}

impl Held {
    /// Opens them, two for each connection, and waits until all are there.
    pub fn open(stage: &Stage, sockets: u32) -> Result<Self> {
        let holder = stage.load_command(&words(&format!("hold --sockets {sockets}")));
        let program = Program::start(LOAD, holder)?;
        let line = program.out_line(Instant::now() + patience())?;
        let said: Value = serde_json::from_str(&line).with_context(|| format!("{LOAD} said {line:?}"))?;
        ensure!(said["sockets"] == sockets, "wanted {sockets} sockets: {said}");
        Ok(Self { program, sockets })
    }

    /// How many there are.
    pub fn sockets(&self) -> u32 {
        self.sockets
    }

    /// Closes them all and waits until that is done.
    pub fn close(mut self) -> Result<()> {
        self.program.hang_up();
        let status = self.program.wait(patience())?;
        ensure!(status.success(), "{LOAD} ended with {status}: {}", self.program.log());
        Ok(())
    }
}

/// The kernel counts runs and time of BPF programs as long as this lives (`bpf_enable_stats` in kernel/bpf/syscall.c).
pub struct KernelStatistics(#[expect(dead_code, reason = "held for its drop")] OwnedFd);

impl KernelStatistics {
    /// Switches them on.
    pub fn enable() -> Result<Self> {
        /// The command of bpf(2), since Linux 5.8.
        const BPF_ENABLE_STATS: libc::c_int = 32;
        // `union bpf_attr` with `enable_stats.type` = BPF_STATS_RUN_TIME, which is 0.
        let attribute = [0_u32; 4];
        // SAFETY: the attribute is as long as it is said to be, and the kernel only reads it.
        let fd = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_ENABLE_STATS, attribute.as_ptr(), std::mem::size_of_val(&attribute))
        };
        let fd = nix::errno::Errno::result(fd).context("switch the statistics of BPF programs on")?;
        // SAFETY: the kernel has just made the descriptor, and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) }))
    }
}

/// A file that swallows what is written.
pub fn null() -> Result<fs::File> {
    OpenOptions::new().write(true).open("/dev/null").context("open /dev/null")
}
