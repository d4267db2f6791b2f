//! Tracepoints `sys_exit_accept` and `sys_exit_accept4`: which process took a connection. The call returns a
//! descriptor, which is followed to its socket.

use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use tracer_common::{kind, role};

use super::{emit_socket, now_ns, tcp};
use crate::maps::{OWNERS, offset};
use crate::sock::read;
use crate::{sock, task};

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
    // Only a socket whose handshake was seen: whatever else the descriptor may be is not in the map.
    let Some(known) = OWNERS.get_ptr_mut(sk) else { return };
    // SAFETY: the entry is live; its other writers are the socket's own transitions, which write other fields, or
    // the whole entry with what they read, in which case the acceptor stays unknown and is never wrong.
    let owner = unsafe { &mut *known };
    if owner.role != role::SERVER || owner.opener.tgid != 0 {
        return;
    }
    owner.inode = sock::inode(sk);
    task::fill_current(&mut owner.opener);
    task::watch(&owner.opener);
    if let Some(ports) = sock::ports(sk) {
        let state: u8 = read(sk, offset!(skc_state)).unwrap_or(tcp::ESTABLISHED);
        emit_socket(kind::ACCEPT, sk, now_ns(), owner, (state, state), ports, |_| {});
    }
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
