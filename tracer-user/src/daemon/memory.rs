//! How this process uses the allocator: what a look or a snapshot of many sockets takes for a moment goes back to the
//! system afterwards. Only glibc's allocator needs to be told.

/// Blocks from this size on are mapped on their own, and unmapped when they are freed. Without a word glibc raises its
/// threshold to the largest block ever freed, up to 32 MiB, and keeps everything below.
const MAPPED_BYTES: i32 = 256 << 10;
/// Arenas. Every thread would get one of its own, and each would keep what it once needed.
const ARENAS: i32 = 2;

/// Call while there is one thread.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes no pointers; it is to be called before there are threads (mallopt(3)), and is.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
    // SAFETY: PR_SET_THP_DISABLE takes no pointers. Where huge pages are given to everybody, each arena would take some
    // megabytes at once.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// Reading the kernel's types takes tens of megabytes for a moment, in small blocks: give them back to the system.
pub(super) fn release() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointer and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
