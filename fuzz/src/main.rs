//! libFuzzer over one of the targets, named by LINKSPAN_FUZZ_TARGET; memory is counted.
#![no_main]

mod session;
mod targets;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use targets::{TARGETS, Target};

thread_local! {
    /// Bytes held now, and most so far, of this thread's allocations.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count(bytes: isize) {
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        held.set((now + bytes, most.max(now + bytes)));
    });
}

/// The system's allocator, counted.
struct Counting;

// SAFETY: every call goes to the system's allocator with the caller's own arguments; counting touches no memory of theirs.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn target() -> &'static Target {
    static TARGET: OnceLock<&Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("LINKSPAN_FUZZ_TARGET").expect("bin/fuzz sets LINKSPAN_FUZZ_TARGET");
        TARGETS.iter().find(|target| target.name == name).expect("bin/fuzz names a target")
    })
}

// What is made once and kept must not count: the first run is nobody's.
fuzz_target!(init: (target().run)(b""), |data: &[u8]| {
    let target = target();
    let before = HELD.get().0;
    HELD.set((before, before));
    (target.run)(data);
    let used = HELD.get().1 - before;
    let (base, each) = target.memory;
    let limit = base + each * data.len();
    assert!(used <= limit as isize, "{} bytes allocated for an input of {}, limit {limit}", used, data.len());
});
