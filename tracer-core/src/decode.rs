//! Bytes from the ring buffer into [`Event`]s. Every byte is checked: a record that says something impossible is an
//! error, never a guess.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tracer_common::{
    ABI_VERSION, AcceptRecord, DropRecord, Owner, ProcessRecord, RecordHeader, SocketRecord, TaskRecord, kind, role,
};

use crate::event::{
    AcceptsEvent, Comm, DropEvent, Event, ProcessEvent, ProcessEventKind, ProcessId, Role, SocketEvent,
    SocketEventKind, Task, Totals, Tuple,
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
        kind::OPEN | kind::STATE | kind::END | kind::ACCEPT | kind::RETRANSMIT | kind::REFUSED => {
            size_of::<SocketRecord>()
        }
        kind::EXEC | kind::EXIT => size_of::<ProcessRecord>(),
        kind::DROP => size_of::<DropRecord>(),
        unknown => return Err(DecodeError::Kind(unknown)),
    };
    if bytes.len() != wanted || usize::from(header.len) != wanted {
        return Err(DecodeError::Length(bytes.len()));
    }
    match header.kind {
        kind::EXEC => process(&mut reader, header, ProcessEventKind::Exec),
        kind::EXIT => process(&mut reader, header, ProcessEventKind::Exit),
        kind::DROP => discarded(&mut reader, header),
        _ => socket(&mut reader, header),
    }
}

fn process(reader: &mut Reader<'_>, header: RecordHeader, kind: ProcessEventKind) -> Result<Event, DecodeError> {
    let task = task(&reader.task()?).ok_or(DecodeError::Field("process id"))?;
    Ok(Event::Process(ProcessEvent { kind, at: BootNs(header.at_ns), task, accepts: reader.u64()? }))
}

/// What the kernel side has counted by `at` for the process with that number.
pub fn accepted(at: BootNs, tgid: u32, record: &AcceptRecord) -> Result<Event, DecodeError> {
    if tgid == 0 {
        return Err(DecodeError::Field("process id"));
    }
    let process = ProcessId::from_boot(tgid, BootNs(record.start_ns));
    Ok(Event::Accepts(AcceptsEvent { at, process, total: record.accepts }))
}

fn discarded(reader: &mut Reader<'_>, header: RecordHeader) -> Result<Event, DecodeError> {
    let (source, destination) = (reader.array()?, reader.array()?);
    let (source_port, destination_port) = (reader.u16()?, reader.u16()?);
    let [family, ..]: [u8; 4] = reader.array()?;
    Ok(Event::Drop(DropEvent {
        at: BootNs(header.at_ns),
        source: SocketAddr::new(address(family, source)?, source_port),
        destination: SocketAddr::new(address(family, destination)?, destination_port),
        reason: reader.u32()?,
    }))
}

fn socket(reader: &mut Reader<'_>, header: RecordHeader) -> Result<Event, DecodeError> {
    let sk = reader.u64()?;
    let owner = reader.owner()?;
    let mut totals = Totals {
        bytes_sent: reader.u64()?,
        bytes_received: reader.u64()?,
        srtt_us: Some(reader.u32()?).filter(|us| *us != 0),
        retransmits: reader.u32()?,
        consecutive_rtos: 0,
    };
    let error = reader.u16()?;
    let [old_state, new_state, rtos, ..]: [u8; 6] = reader.array()?;
    totals.consecutive_rtos = rtos;
    let kind = match header.kind {
        kind::OPEN => SocketEventKind::Open,
        kind::STATE => SocketEventKind::State,
        kind::ACCEPT => SocketEventKind::Accept,
        kind::RETRANSMIT => SocketEventKind::Retransmit,
        // A connect that was refused at once is a life that ended before it began.
        _ => SocketEventKind::End,
    };
    let states = (state(old_state, "old state")?, state(new_state, "new state")?);
    Ok(Event::Socket(SocketEvent { error, totals, ..event(kind, BootNs(header.at_ns), sk, &owner, states)? }))
}

/// What the kernel side remembers of a living socket, as the event that would have told it: of its establishment, or of
/// a connect still under way. `None` for an entry that is about to go.
pub fn remembered(sk: u64, owner: &Owner) -> Result<Option<SocketEvent>, DecodeError> {
    let now = state(owner.state, "state")?;
    let kind = match now {
        TcpState::Close => return Ok(None),
        TcpState::SynSent | TcpState::SynRecv => SocketEventKind::Connect,
        _ => SocketEventKind::Open,
    };
    let event = event(kind, BootNs(owner.state_ns), sk, owner, (now, now))?;
    // Without a port it cannot be matched yet; without a time nothing was seen but that it is there.
    let useful = event.tuple.local().port() != 0 && owner.state_ns != 0;
    Ok(useful.then_some(event))
}

fn event(
    kind: SocketEventKind,
    at: BootNs,
    sk: u64,
    owner: &Owner,
    (old_state, new_state): (TcpState, TcpState),
) -> Result<SocketEvent, DecodeError> {
    Ok(SocketEvent {
        kind,
        at,
        sk,
        birth: moment(owner.birth_ns),
        established: moment(owner.established_ns),
        tuple: Tuple::new(
            owner.netns,
            SocketAddr::new(address(owner.family, owner.local)?, owner.local_port),
            SocketAddr::new(address(owner.family, owner.remote)?, owner.remote_port),
        ),
        role: match owner.role {
            role::CLIENT => Role::Client,
            role::SERVER => Role::Server,
            _ => return Err(DecodeError::Field("role")),
        },
        old_state,
        new_state,
        opener: task(&owner.opener),
        closer: (owner.closer_tgid != 0)
            .then(|| ProcessId::from_boot(owner.closer_tgid, BootNs(owner.closer_start_ns))),
        inode: (owner.inode != 0).then_some(owner.inode),
        error: 0,
        totals: Totals::default(),
    })
}

fn state(number: u8, field: &'static str) -> Result<TcpState, DecodeError> {
    TcpState::from_kernel(number).ok_or(DecodeError::Field(field))
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
        Ok(RecordHeader { kind, version, len: self.u16()?, pad: self.u32()?, at_ns: self.u64()? })
    }

    fn task(&mut self) -> Result<TaskRecord, DecodeError> {
        Ok(TaskRecord { tgid: self.u32()?, uid: self.u32()?, start_ns: self.u64()?, comm: self.array()? })
    }
    fn owner(&mut self) -> Result<Owner, DecodeError> {
        let birth_ns = self.u64()?;
        let established_ns = self.u64()?;
        let state_ns = self.u64()?;
        let retransmit_ns = self.u64()?;
        let closer_start_ns = self.u64()?;
        let opener = self.task()?;
        let (local, remote) = (self.array()?, self.array()?);
        let (closer_tgid, netns, inode) = (self.u32()?, self.u32()?, self.u32()?);
        let (local_port, remote_port) = (self.u16()?, self.u16()?);
        let [family, role, state, flags] = self.array()?;
        Ok(Owner {
            birth_ns,
            established_ns,
            state_ns,
            retransmit_ns,
            closer_start_ns,
            opener,
            local,
            remote,
            closer_tgid,
            netns,
            inode,
            local_port,
            remote_port,
            family,
            role,
            state,
            flags,
            pad: self.u32()?,
        })
    }
}
