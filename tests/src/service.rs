//! A service that opens a connection to PostgreSQL for each request (`live/service.py`), and requests to it.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::pace::patience;
use crate::postgres::PORT;
use crate::program::{Program, command};
use crate::sandbox::venv_python;

/// A running one. It has a connection from its beginning on, and so is watched.
pub struct Service {
    program: Program,
    address: SocketAddr,
}

impl Service {
    /// Starts one with so many threads that accept, and waits until they do.
    pub fn start(threads: u32) -> Result<Self> {
        let mut service = command(venv_python()?);
        service.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("live/service.py"));
        service.args([PORT.to_string(), threads.to_string()]);
        let program = Program::start("service", service)?;
        let line = program.out_line(Instant::now() + patience())?;
        let hello: Value = serde_json::from_str(&line).with_context(|| format!("the service said {line:?}"))?;
        ensure!(hello["pid"] == program.pid(), "the service is not pid {}: {hello}", program.pid());
        let port = hello["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        let address = (Ipv4Addr::LOCALHOST, port.with_context(|| format!("no port in {hello}"))?).into();
        Ok(Self { program, address })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// So many requests, one after the other, each answered.
    pub fn ask(&self, requests: u64) -> Result<()> {
        for _ in 0..requests {
            self.answer(self.request()?)?;
        }
        Ok(())
    }

    /// So many requests at once, each answered.
    pub fn ask_at_once(&self, requests: u64) -> Result<()> {
        let sent = (0..requests).map(|_| self.request()).collect::<Result<Vec<_>>>()?;
        sent.into_iter().try_for_each(|request| self.answer(request))
    }

    fn request(&self) -> Result<TcpStream> {
        let request = TcpStream::connect_timeout(&self.address, patience()).context("the service does not listen")?;
        request.set_read_timeout(Some(patience()))?;
        Ok(request)
    }

    fn answer(&self, request: TcpStream) -> Result<()> {
        let mut answer = String::new();
        BufReader::new(request).read_line(&mut answer).context("the service does not answer")?;
        ensure!(answer == "done\n", "the service answered {answer:?}; it said:\n{}", self.program.log());
        Ok(())
    }

    /// Kills it.
    pub fn kill(&mut self) -> Result<()> {
        self.program.kill()
    }
}
