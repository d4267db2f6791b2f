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
        let mut driver = command(venv_python()?);
        driver.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("live/client.py")).arg(PORT.to_string());
        let client = Self { program: Program::start("client", driver)? };
        let hello = client.answer()?;
        ensure!(hello["pid"] == client.pid(), "the client is not pid {}: {hello}", client.pid());
        Ok(client)
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
