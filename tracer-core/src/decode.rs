//! Bytes from the ring buffer into [`Event`]s. Every byte is checked: a record that says something impossible is an
//! error, never a guess.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tracer_common::{ABI_VERSION, ProcessRecord, RecordHeader, SocketRecord, TaskRecord, kind, role};

use crate::event::{
    Comm, Event, ProcessEvent, ProcessEventKind, ProcessId, Role, SocketEvent, SocketEventKind, Task, Totals, Tuple,
};
use crate::tcp::TcpState;
use crate::time::BootNs;

/// Why a record could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than its kind's record, or not as long as it says.
    #[error("record of {0} bytes is truncated or says another length")]
    Length(usize),
    /// Made by another version of the kernel side.
    #[error("record has ABI version {0}")]
    Version(u8),
    /// No such kind.
    #[error("record has unknown kind {0}")]
    Kind(u8),
    /// A field has an impossible value.
    #[error("record has an impossible {0}")]
    Field(&'static str),
}

/// Reads one record.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let mut reader = Reader { bytes, at: 0 };
    let header = reader.header()?;
    if u32::from(header.version) != ABI_VERSION {
        return Err(DecodeError::Version(header.version));
    }
    let wanted = match header.kind {
        kind::OPEN | kind::STATE | kind::END | kind::ACCEPT | kind::RETRANSMIT => size_of::<SocketRecord>(),
        kind::EXEC | kind::EXIT => size_of::<ProcessRecord>(),
        unknown => return Err(DecodeError::Kind(unknown)),
    };
    if bytes.len() != wanted || usize::from(header.len) != wanted {
        return Err(DecodeError::Length(bytes.len()));
    }
    match header.kind {
        kind::EXEC => process(&mut reader, header, ProcessEventKind::Exec),
        kind::EXIT => process(&mut reader, header, ProcessEventKind::Exit),
        _ => socket(&mut reader, header),
    }
}

fn process(reader: &mut Reader<'_>, header: RecordHeader, kind: ProcessEventKind) -> Result<Event, DecodeError> {
    let task = task(&reader.task()?).ok_or(DecodeError::Field("process id"))?;
    Ok(Event::Process(ProcessEvent { kind, at: BootNs(header.at_ns), task }))
}

fn socket(reader: &mut Reader<'_>, header: RecordHeader) -> Result<Event, DecodeError> {
    let sk = reader.u64()?;
    let birth_ns = reader.u64()?;
    let established_ns = reader.u64()?;
    let local: [u8; 16] = reader.array()?;
    let remote: [u8; 16] = reader.array()?;
    let local_port = reader.u16()?;
    let remote_port = reader.u16()?;
    let [family, role, old_state, new_state] = reader.array()?;
    let opener = reader.task()?;
    let closer_tgid = reader.u32()?;
    let error = reader.u16()?;
    let [rtos, _pad] = reader.array()?;
    let closer_start_ns = reader.u64()?;
    let totals = Totals {
        bytes_sent: reader.u64()?,
        bytes_received: reader.u64()?,
        srtt_us: Some(reader.u32()?).filter(|us| *us != 0),
        retransmits: reader.u32()?,
        consecutive_rtos: rtos,
    };
    let inode = reader.u32()?;
    let closer = (closer_tgid != 0).then(|| ProcessId::from_boot(closer_tgid, BootNs(closer_start_ns)));
    Ok(Event::Socket(SocketEvent {
        kind: match header.kind {
            kind::OPEN => SocketEventKind::Open,
            kind::STATE => SocketEventKind::State,
            kind::END => SocketEventKind::End,
            kind::ACCEPT => SocketEventKind::Accept,
            _ => SocketEventKind::Retransmit,
        },
        at: BootNs(header.at_ns),
        sk,
        birth: moment(birth_ns),
        established: moment(established_ns),
        tuple: Tuple::new(
            header.netns,
            SocketAddr::new(address(family, local)?, local_port),
            SocketAddr::new(address(family, remote)?, remote_port),
        ),
        role: match role {
            role::CLIENT => Role::Client,
            role::SERVER => Role::Server,
            _ => return Err(DecodeError::Field("role")),
        },
        old_state: TcpState::from_kernel(old_state).ok_or(DecodeError::Field("old state"))?,
        new_state: TcpState::from_kernel(new_state).ok_or(DecodeError::Field("new state"))?,
        opener: task(&opener),
        closer,
        inode: (inode != 0).then_some(inode),
        error,
        totals,
    }))
}

fn moment(ns: u64) -> Option<BootNs> {
    (ns != 0).then_some(BootNs(ns))
}

fn task(record: &TaskRecord) -> Option<Task> {
    (record.tgid != 0).then(|| Task {
        id: ProcessId::from_boot(record.tgid, BootNs(record.start_ns)),
        uid: record.uid,
        comm: Comm(record.comm),
    })
}

fn address(family: u8, bytes: [u8; 16]) -> Result<IpAddr, DecodeError> {
    match family {
        4 => {
            let [a, b, c, d, ..] = bytes;
            Ok(Ipv4Addr::new(a, b, c, d).into())
        }
        6 => Ok(Ipv6Addr::from(bytes).into()),
        _ => Err(DecodeError::Field("address family")),
    }
}

/// Takes integers off the front, native byte order: the kernel side runs on this machine.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let part = self.bytes.get(self.at..self.at + N).and_then(|part| part.first_chunk::<N>());
        let part = *part.ok_or(DecodeError::Length(self.bytes.len()))?;
        self.at += N;
        Ok(part)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_ne_bytes)
    }

    fn header(&mut self) -> Result<RecordHeader, DecodeError> {
        let [kind, version] = self.array()?;
        Ok(RecordHeader { kind, version, len: self.u16()?, netns: self.u32()?, at_ns: self.u64()? })
    }

    fn task(&mut self) -> Result<TaskRecord, DecodeError> {
        Ok(TaskRecord { tgid: self.u32()?, uid: self.u32()?, start_ns: self.u64()?, comm: self.array()? })
    }
}
