//! Read buffers of one thread. A connection has one only while bytes are pending: thousands that wait cost nothing.
//!
//! The list is per thread and unlocked. It deliberately keeps only buffers of the usual size, and only so many.

use std::cell::RefCell;

use bytes::BytesMut;

/// Bytes that are read at once to begin with.
pub const READ_SIZE: usize = 16 * 1024;

/// Most that are kept; more come and go with a burst.
const KEPT: usize = 64;

thread_local! {
    static POOL: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// Returns an empty buffer with room for a read.
#[inline]
#[must_use]
pub fn take() -> BytesMut {
    POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(READ_SIZE))
}

/// Gives a buffer back, unless its room is used up or it grew large for a large body.
#[inline]
pub fn give(mut buffer: BytesMut) {
    buffer.clear();
    // Room in front of what was read counts again.
    if buffer.try_reclaim(READ_SIZE) && buffer.capacity() < 4 * READ_SIZE {
        POOL.with_borrow_mut(|pool| {
            if pool.len() < KEPT {
                pool.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_was_given_back_is_taken_again() {
        let mut buffer = take();
        assert!(buffer.is_empty() && buffer.capacity() >= READ_SIZE);
        buffer.extend_from_slice(b"a request");
        let before = buffer.as_ptr();
        // A part that somebody had and dropped again is room again.
        drop(buffer.split_to(2));
        give(buffer);
        let again = take();
        assert!(again.is_empty() && again.capacity() >= READ_SIZE);
        assert_eq!(again.as_ptr(), before);
    }

    #[test]
    fn buffers_in_use_and_large_ones_are_not_kept() {
        let mut used = take();
        used.extend_from_slice(b"a body");
        let body = used.split_to(6).freeze();
        give(used);
        let mut large = take();
        large.reserve(4 * READ_SIZE);
        give(large);
        assert_eq!(POOL.with_borrow(Vec::len), 0);
        assert_eq!(&*body, b"a body");
    }

    #[test]
    fn only_so_many_are_kept() {
        let burst: Vec<BytesMut> = (0..2 * KEPT).map(|_| take()).collect();
        burst.into_iter().for_each(give);
        assert_eq!(POOL.with_borrow(Vec::len), KEPT);
    }
}
