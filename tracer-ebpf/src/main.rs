//! The kernel side of socklife: a few programs on raw tracepoints that report the life of database sockets.
//!
//! What lives here runs on every TCP state change of the host, so it filters first, reads little, and emits only what
//! user space cannot learn later. `emit` is the only place that writes to the ring buffer. Meaning (roles, ages,
//! verdicts) lives in user space.
#![no_std]
#![no_main]
#![expect(unstable_features, reason = "there is no other way to an atomic addition: `core` has none for BPF")]
#![feature(asm_experimental_arch)]

mod emit;
mod filter;
mod maps;
mod probes;
mod sock;
mod task;

/// The licence the kernel checks before it lends its GPL-only helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program that can reach this loop, so no loaded program can.
    loop {}
}
