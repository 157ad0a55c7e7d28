//! Reading ahead: a walk over a whole bucket meets pages that mostly follow each other and knows it from the branch above
//! them, so it reads many at once.

use std::io;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::file::FileLayer;

/// Read where nothing is known of what comes next: a page and what it most likely overflows into.
const LEAST: usize = 16 << 10;
/// Read at once, whatever is expected.
const MOST: u64 = 256 << 10;

/// A layer that keeps a window of another one. Only for as long as a snapshot lasts: what it keeps is not read again.
pub(super) struct ReadAhead<'l> {
    layer: &'l dyn FileLayer,
    window: Mutex<Window>,
}

#[derive(Default)]
struct Window {
    start: u64,
    data: Vec<u8>,
    /// What was said to be read soon.
    expected: Range<u64>,
}

impl Window {
    /// The window's bytes from `offset` on, if it has so many.
    fn get(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.data.get(at..at.checked_add(len)?)
    }

    /// How much to read at `offset`.
    fn reach(&self, offset: u64) -> usize {
        let expected = if self.expected.contains(&offset) { self.expected.end.saturating_sub(offset) } else { 0 };
        usize::try_from(expected.min(MOST)).unwrap_or_default().max(LEAST)
    }
}

impl<'l> ReadAhead<'l> {
    pub(super) fn new(layer: &'l dyn FileLayer) -> Self {
        Self { layer, window: Mutex::default() }
    }
}

impl FileLayer for ReadAhead<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = window.get(offset, buf.len()) {
            buf.copy_from_slice(found);
            return Ok(buf.len());
        }
        let length = window.reach(offset);
        if buf.len() >= length {
            return self.layer.read_at(buf, offset);
        }
        window.start = offset;
        window.data.resize(length, 0);
        let read = self.layer.read_at(&mut window.data, offset);
        window.data.truncate(*read.as_ref().unwrap_or(&0));
        let read = read?.min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..read), window.data.get(..read)) {
            to.copy_from_slice(from);
        }
        Ok(read)
    }

    fn expect(&self, range: Range<u64>) {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).expected = range;
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.layer.write_at(buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.layer.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.layer.set_len(len)
    }

    fn sync(&self, metadata: bool) -> io::Result<()> {
        self.layer.sync(metadata)
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test that reads outside has failed")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Bytes that count how often they are read.
    struct Bytes {
        bytes: Vec<u8>,
        reads: AtomicUsize,
        /// Give less than is asked for now and then, as files may.
        moody: bool,
    }

    impl FileLayer for Bytes {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let rest = self.bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
            let most = if self.moody && offset.is_multiple_of(7) { 5 } else { usize::MAX };
            let read = rest.len().min(buf.len()).min(most);
            buf[..read].copy_from_slice(&rest[..read]);
            Ok(read)
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn len(&self) -> io::Result<u64> {
            Ok(self.bytes.len() as u64)
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn sync(&self, _: bool) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    fn numbered(len: usize, moody: bool) -> Bytes {
        let bytes = (0..len).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect();
        Bytes { bytes, reads: AtomicUsize::new(0), moody }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_is_there(
            len in 0..100_000_usize,
            reads in proptest::collection::vec((0..110_000_u64, 0..40_000_usize, any::<bool>(), 0..90_000_u64), 1..30),
        ) {
            let layer = numbered(len, true);
            let ahead = ReadAhead::new(&layer);
            let mut next = 0;
            for (offset, want, go_on, expected) in reads {
                let offset = if go_on { next } else { offset };
                ahead.expect(offset..offset + expected);
                let mut buf = vec![0; want];
                let read = super::super::file::read_full(&ahead, &mut buf, offset).unwrap();
                let rest = layer.bytes.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
                prop_assert_eq!(read, rest.len().min(want));
                prop_assert_eq!(&buf[..read], &rest[..read]);
                next = offset + read as u64;
            }
        }
    }

    #[test]
    fn pages_in_order_are_read_together() {
        let layer = numbered(4 << 20, false);
        let ahead = ReadAhead::new(&layer);
        ahead.expect(0..4 << 20);
        for page in 0..1024 {
            assert_eq!(ahead.read_at(&mut [0; 4096], page * 4096).unwrap(), 4096);
        }
        assert!(layer.reads.load(Ordering::Relaxed) < 40, "{} reads", layer.reads.load(Ordering::Relaxed));
    }
}
