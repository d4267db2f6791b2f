//! One guest: QEMU is started, read line by line, and ended on every way out.
//!
//! Knows nothing of what the lines mean; it stamps them, keeps them, and hands each to who wants it.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::emulator::{self, QEMU};
use crate::sh;

const MEMORY_MIB: &str = "2048";
/// The least that programs of today are built for: cheaper to emulate than a newer one.
const CPU: &str = "Nehalem";
/// As many as the smallest machine the suite is meant for.
const CPUS: &str = "2";
/// Lines that may wait to be read.
const QUEUE: usize = 1024;

/// How long a killed guest's last line may take to be read.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// What a guest boots from, and where its output is kept.
pub struct Guest<'a> {
    /// Compressed kernel.
    pub kernel: &'a Path,
    /// Its first root file system.
    pub initrd: &'a Path,
    /// What the kernel says.
    pub console: &'a Path,
    /// What the second serial port says, with the seconds since power-on before each line.
    pub log: &'a Path,
    /// It is killed after that time.
    pub within: Duration,
}

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself.
    PoweredOff,
    /// It was too slow or hung.
    TimedOut,
}

/// Boots a guest and hands on each line of its second serial port, with the time since power-on.
pub fn run(guest: &Guest<'_>, mut seen: impl FnMut(&str, Duration)) -> Result<End> {
    let start = Instant::now();
    let mut log = File::create(guest.log).with_context(|| format!("cannot write {}", guest.log.display()))?;
    let mut qemu = Qemu::start(guest)?;
    let lines = qemu.lines()?;
    let mut deadline = start + guest.within;
    let mut end = End::PoweredOff;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                let at = start.elapsed();
                writeln!(log, "[{:7.1}] {line}", at.as_secs_f64()).context("cannot write the guest's log")?;
                seen(&line, at);
            }
            // Its last line, which has no end yet, says what it hangs in: that comes when it is gone.
            Err(RecvTimeoutError::Timeout) if end == End::PoweredOff => {
                end = End::TimedOut;
                deadline += LAST_WORDS;
                qemu.0.kill().context("cannot kill QEMU")?;
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = qemu.0.wait().context("cannot wait for QEMU")?;
    anyhow::ensure!(end == End::TimedOut || status.success(), "{QEMU} failed: {status}; its messages are above");
    Ok(end)
}

/// A running emulator; killed and reaped when dropped.
struct Qemu(Child);

impl Qemu {
    fn start(guest: &Guest<'_>) -> Result<Self> {
        // Ends with us, however we end: by Ctrl-C, by a signal, by the out-of-memory killer.
        let mut command = Command::new("setpriv");
        let program = emulator::find()?;
        command.args(["--pdeathsig", "KILL", "--"]).arg(&program);
        emulator::with_its_files(&mut command, &program);
        command.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
        // One after the other: with a thread for each CPU this emulator (7.2) can run code that another CPU has patched
        // by now, and a kernel that patches itself, as for every fexit program, then dies of an `int3` nobody set.
        command.args(["-accel", "tcg,thread=single,tb-size=512", "-cpu", CPU, "-smp", CPUS, "-m", MEMORY_MIB]);
        command.args(["-display", "none", "-kernel"]).arg(guest.kernel).arg("-initrd").arg(guest.initrd);
        // What goes wrong in the kernel ends the machine, and with it the suite.
        command.args(["-append", "console=ttyS0 quiet panic=-1 oops=panic mitigations=off"]);
        command.arg("-serial").arg(format!("file:{}", guest.console.display()));
        command.args(["-chardev", "stdio,id=suite,signal=off", "-serial", "chardev:suite"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let name = sh::display(&command);
        Ok(Self(command.spawn().with_context(|| format!("cannot start `{name}`"))?))
    }

    fn lines(&mut self) -> Result<Receiver<String>> {
        let stdout = self.0.stdout.take().context("QEMU has no stdout")?;
        let (sender, receiver) = sync_channel(QUEUE);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n') {
                let Ok(line) = line else { return };
                let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
