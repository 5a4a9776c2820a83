//! Anonymous memory for packets: on huge pages where there are any, or as the configuration says.
#![allow(unsafe_code)] // mmap(2) and its like have no safe form.

use super::error::DriverError;
use config::HugePages;
use rustix::mm::MapFlags;
#[cfg(not(miri))]
use rustix::mm::{Advice, ProtFlags, madvise, mmap_anonymous, munmap};
use std::ptr::NonNull;

/// Bytes in a huge page as we ask for them: 2 MiB, which every x86-64 and most arm64 kernels have.
/// A mapping on huge pages must be a whole number of them.
pub(super) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Bytes in the mapping's unit without huge pages. Where the kernel's pages are larger, it rounds
/// the mapping up itself.
const PAGE_BYTES: usize = 4096;

/// A mapping of our own. Unmaps on drop; [`Umem`](super::umem::Umem) decides whether it is dropped.
pub(super) struct Mapping {
    pub(super) base: NonNull<u8>,
    /// In bytes, whole pages.
    pub(super) len: usize,
    /// Whether it is on huge pages.
    pub(super) huge: bool,
}

impl Mapping {
    /// Maps and populates `len` bytes or a little more.
    ///
    /// # Errors
    /// Too little memory, or huge pages required and not there.
    pub(super) fn new(len: usize, pages: HugePages) -> Result<Self, DriverError> {
        if pages != HugePages::Never && !cfg!(miri) {
            let huge_len = len.next_multiple_of(HUGE_PAGE_BYTES);
            match Self::map(huge_len, MapFlags::HUGETLB | MapFlags::HUGE_2MB) {
                Ok(base) => {
                    return Ok(Self {
                        base,
                        len: huge_len,
                        huge: true,
                    });
                }
                Err(errno) if pages == HugePages::Require => {
                    return Err(DriverError::HugePages {
                        pages: huge_len / HUGE_PAGE_BYTES,
                        errno,
                    });
                }
                Err(_) => {}
            }
        }
        let len = len.next_multiple_of(PAGE_BYTES);
        match Self::map(len, MapFlags::empty()) {
            Ok(base) => Ok(Self {
                base,
                len,
                huge: false,
            }),
            Err(errno) => Err(DriverError::os(
                format!("map {len} bytes for packets"),
                errno,
            )),
        }
    }

    #[cfg(not(miri))]
    fn map(len: usize, extra: MapFlags) -> Result<NonNull<u8>, rustix::io::Errno> {
        // SAFETY: a fresh anonymous mapping aliases nothing. POPULATE: no page fault, and no
        // running out of memory, after start.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::POPULATE | extra,
            )?
        };
        // After a fork, copy-on-write would move our pages away from those the kernel has pinned.
        // Refused only by kernels without the advice, where nobody forks this process either.
        // SAFETY: advice about a mapping that is ours, and that changes nothing in this process.
        let _ = unsafe { madvise(base, len, Advice::LinuxDontFork) };
        NonNull::new(base.cast()).ok_or(rustix::io::Errno::FAULT)
    }

    /// Miri has no mmap: memory of the same shape, so that it can judge everything above it.
    #[cfg(miri)]
    fn map(len: usize, _extra: MapFlags) -> Result<NonNull<u8>, rustix::io::Errno> {
        // SAFETY: never empty.
        NonNull::new(unsafe { std::alloc::alloc_zeroed(Self::layout(len)) })
            .ok_or(rustix::io::Errno::NOMEM)
    }

    #[cfg(miri)]
    fn layout(len: usize) -> std::alloc::Layout {
        std::alloc::Layout::from_size_align(len, PAGE_BYTES).expect("invariant: whole pages")
    }
}

impl Drop for Mapping {
    #[cfg(miri)]
    fn drop(&mut self) {
        // SAFETY: from `map`, with this layout; `Umem` saw that no frame is out.
        unsafe { std::alloc::dealloc(self.base.as_ptr(), Self::layout(self.len)) };
    }

    #[cfg(not(miri))]
    fn drop(&mut self) {
        // SAFETY: our own mapping, whole, and `Umem` saw that no frame of it is out. Chunks that
        // are in rings do not matter: the kernel has its own reference to the pages.
        if let Err(errno) = unsafe { munmap(self.base.as_ptr().cast(), self.len) } {
            tracing::error!(%errno, "packet memory could not be unmapped");
        }
    }
}
