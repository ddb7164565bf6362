//! How the daemon gets large buffers.
#![cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "no crate offers mallopt(3)")
)]

/// Has every large buffer mapped, and unmapped when it is freed.
///
/// Each reader of a session has a buffer of 16 MiB, of which few pages are ever touched. glibc maps
/// the first of them, but once one was freed it serves the next from its heap, and then clears all
/// of it by hand: 2 ms for each thread of each job. A fixed threshold switches that learning off.
pub fn map_large_buffers() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets an integer parameter of the allocator; called before other threads exist.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    }
}
