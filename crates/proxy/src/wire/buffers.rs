//! Read buffers of one worker. A connection has one only while bytes are pending: thousands that wait cost nothing.

use std::cell::RefCell;

use bytes::BytesMut;

/// Bytes that are read at once to begin with.
pub(crate) const READ_SIZE: usize = 16 * 1024;

/// Most that are kept; more come and go with a burst.
const KEPT: usize = 64;

thread_local! {
    static POOL: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for a read.
pub(crate) fn take() -> BytesMut {
    POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(READ_SIZE))
}

/// Gives a buffer back, unless its room is used up or it grew large for a large body.
pub(crate) fn give(mut buffer: BytesMut) {
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
