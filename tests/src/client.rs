//! A real psycopg client, obeying one command at a time (`live/client.py`).

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::pace::patience;
use crate::postgres::PORT;
use crate::program::{Program, command};
use crate::sandbox::venv_python;

/// A process with psycopg connections.
pub struct Client {
    program: Program,
}

impl Client {
    /// Starts a client without connections.
    pub fn start() -> Result<Self> {
        Self::start_by(&[], PORT)
    }

    /// Starts one through a program such as `ip netns exec` that becomes it, for a server on another port.
    pub fn start_by(way: &[&str], port: u16) -> Result<Self> {
        let (client, pid) = Self::launch(way, port)?;
        ensure!(pid == u64::from(client.pid()), "the client is pid {pid}, not {}", client.pid());
        Ok(client)
    }

    /// Starts one as the first process of a pid namespace of its own; its pid out here. Its own guard is that
    /// namespace's parent, and ends it.
    pub fn start_in_pid_namespace() -> Result<(Self, u32)> {
        let way = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];
        let (client, pid) = Self::launch(&way, PORT)?;
        ensure!(pid == 1, "the client is pid {pid} in its namespace, not 1");
        let parent = client.pid();
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
        let child = children.trim().parse().with_context(|| format!("children of {parent}: {children:?}"))?;
        Ok((client, child))
    }

    /// A client, and its own idea of its pid.
    fn launch(way: &[&str], port: u16) -> Result<(Self, u64)> {
        let python = venv_python()?;
        let mut driver = match way {
            [] => command(python),
            [first, rest @ ..] => {
                let mut driver = command(first);
                driver.args(rest).arg(python);
                driver
            }
        };
        driver.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("live/client.py")).arg(port.to_string());
        let client = Self { program: Program::start("client", driver)? };
        let hello = client.answer()?;
        let pid = hello["pid"].as_u64().with_context(|| format!("no pid in {hello}"))?;
        Ok((client, pid))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// Tells it to do something; [`Self::answer`] waits until it is done.
    pub fn tell(&mut self, order: &str) -> Result<()> {
        self.program.say(order)
    }

    /// Its answer to the oldest order without one.
    pub fn answer(&self) -> Result<Value> {
        let line = self.program.out_line(Instant::now() + patience())?;
        let answer: Value = serde_json::from_str(&line).with_context(|| format!("client said {line:?}"))?;
        ensure!(answer["ok"] == true, "client {}: {answer}", self.pid());
        Ok(answer)
    }

    /// Does something and waits until it is done.
    pub fn run(&mut self, order: &str) -> Result<Value> {
        self.tell(order)?;
        self.answer().with_context(|| format!("client was told {order:?}"))
    }

    /// Like [`Self::run`] for an order that answers with the local ports it acted on.
    pub fn ports(&mut self, order: &str) -> Result<Vec<u16>> {
        ports_of(&self.run(order)?)
    }

    /// Opens connections to `host`; their local ports.
    pub fn open(&mut self, count: usize, host: &str) -> Result<Vec<u16>> {
        self.ports(&format!("open {count} {host}"))
    }

    /// Makes a child that holds what it inherited; its pid. It ends when this client's stdin is closed.
    pub fn fork(&mut self) -> Result<u32> {
        let answer = self.run("fork")?;
        Ok(u32::try_from(answer["pid"].as_u64().context("no pid in the answer")?)?)
    }

    /// Kills it as the kernel's OOM killer would. Children it made live on.
    pub fn kill(&mut self) -> Result<()> {
        self.program.kill()
    }

    /// Lets go of the children that hold for it.
    pub fn release(&mut self) {
        self.program.hang_up();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.program.signal(signal)
    }
}

/// The ports in an answer.
pub fn ports_of(answer: &Value) -> Result<Vec<u16>> {
    serde_json::from_value(answer["ports"].clone()).with_context(|| format!("no ports in {answer}"))
}
