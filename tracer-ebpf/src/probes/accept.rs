//! Tracepoints `sys_exit_accept` and `sys_exit_accept4`: which process took a connection. The call returns a
//! descriptor, which is followed to its socket.
//!
//! Unlike all other programs this one does not run under the socket's lock: the connection may end on another CPU
//! meanwhile and its entry in `OWNERS` may already belong to another socket. So the map is not touched here. The socket
//! itself stays, because the process has its descriptor.

use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use tracer_common::{SocketRecord, kind, role};

use super::{now_ns, tcp};
use crate::emit::emit;
use crate::maps::offset;
use crate::sock::read;
use crate::{filter, sock, task};

/// Offset of `ret` in every `sys_exit_*` record: 8 bytes of common fields, then `int nr` padded to 8.
const RET_OFFSET: usize = 16;

#[tracepoint(category = "syscalls", name = "sys_exit_accept")]
pub fn accept(ctx: TracePointContext) -> u32 {
    accepted(&ctx);
    0
}

#[tracepoint(category = "syscalls", name = "sys_exit_accept4")]
pub fn accept4(ctx: TracePointContext) -> u32 {
    accepted(&ctx);
    0
}

#[inline(always)]
fn accepted(ctx: &TracePointContext) {
    // SAFETY: reads the program's own context through a checking helper.
    let Ok(fd) = (unsafe { ctx.read_at::<i64>(RET_OFFSET) }) else { return };
    if fd < 0 {
        return;
    }
    let Some(sk) = socket_of(fd as u64) else { return };
    let Some(ports) = sock::ports(sk) else { return };
    if !filter::watched(ports.local) || !sock::is_tcp(sk, ports) || !filter::watched_netns(sock::netns(sk)) {
        return;
    }
    let state: u8 = read(sk, offset!(skc_state)).unwrap_or(0);
    if state == tcp::CLOSE {
        return;
    }
    emit(kind::ACCEPT, now_ns(), |record: &mut SocketRecord| {
        record.header.netns = sock::netns(sk);
        record.sk = sk;
        record.local_port = ports.local;
        record.remote_port = ports.remote;
        record.role = role::SERVER;
        record.old_state = state;
        record.new_state = state;
        record.inode = sock::inode(sk);
        sock::fill_addresses(record, sk, ports.family);
        task::fill_current(&mut record.opener);
        task::watch(&record.opener);
    });
}

/// `current->files->fdt->fd[fd]->private_data->sk`.
#[inline(always)]
fn socket_of(fd: u64) -> Option<u64> {
    let files: u64 = read(task::current_task(), offset!(task_files))?;
    let table: u64 = read(files, offset!(files_fdt))?;
    let max: u32 = read(table, offset!(fdt_max_fds))?;
    if fd >= u64::from(max) {
        return None;
    }
    let array: u64 = read(table, offset!(fdt_fd))?;
    let file: u64 = read(array, fd as usize * 8)?;
    let socket: u64 = read(file, offset!(file_private_data))?;
    read(socket, offset!(socket_sk))
}
