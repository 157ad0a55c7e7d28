//! The exclusive `flock` that bbolt takes too, and who holds it.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::file::Identity;
use super::{BoltError, Holder};
use crate::cancel::Cancel;

/// How often a taken lock is tried again; bbolt uses the same pace.
const POLL: Duration = Duration::from_millis(50);

/// Take the exclusive lock on `file`, trying until `timeout` has passed. The lock lasts as long as the file is open.
///
/// # Errors
/// [`BoltError::Locked`], [`BoltError::Cancelled`], or [`BoltError::Io`].
pub(super) fn acquire(file: &File, path: &Path, timeout: Duration, cancel: &Cancel) -> Result<(), BoltError> {
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(BoltError::io("lock", path, error)),
            Err(TryLockError::WouldBlock) => {}
        }
        if cancel.is_cancelled() {
            return Err(BoltError::Cancelled);
        }
        let waited = started.elapsed();
        if waited >= timeout {
            let holder = Identity::of_file(file, path).ok().and_then(holder);
            return Err(BoltError::Locked { path: path.to_owned(), waited, holder });
        }
        thread::sleep(POLL.min(timeout.saturating_sub(waited)));
    }
}

/// The process that holds a lock on the file, as far as /proc tells.
fn holder(file: Identity) -> Option<Holder> {
    let pid = find_holder(&fs::read_to_string("/proc/locks").ok()?, file)?;
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    Some(Holder { pid, command: command.map(|name| name.trim_end().to_owned()).filter(|name| !name.is_empty()) })
}

/// Find the holder of the flock on `file` in the text of /proc/locks, whose lines read
/// `1: FLOCK  ADVISORY  WRITE 4711 08:01:131090 0 EOF`. Waiting processes are marked `->`. On stacked file systems
/// the device differs from what stat reports, so a single line with the same inode is believed as well.
fn find_holder(locks: &str, file: Identity) -> Option<u32> {
    let device = (rustix::fs::major(file.device), rustix::fs::minor(file.device));
    let mut same_inode = Vec::new();
    for line in locks.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[_, "FLOCK", _, "WRITE", pid, place, ..] = fields.as_slice() else { continue };
        let mut place = place.split(':');
        let hex = |text: Option<&str>| text.and_then(|text| u32::from_str_radix(text, 16).ok());
        let (major, minor) = (hex(place.next()), hex(place.next()));
        let inode = place.next().and_then(|inode| inode.parse::<u64>().ok());
        // A holder outside our pid namespace is shown as 0 or -1.
        let Some(pid) = pid.parse::<u32>().ok().filter(|pid| *pid > 0) else { continue };
        if inode != Some(file.inode) {
            continue;
        }
        if (major, minor) == (Some(device.0), Some(device.1)) {
            return Some(pid);
        }
        same_inode.push(pid);
    }
    match same_inode.as_slice() {
        [pid] => Some(*pid),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &str = "\
1: POSIX  ADVISORY  WRITE 300 08:01:77 0 EOF
2: FLOCK  ADVISORY  WRITE 411 08:01:77 0 EOF
2: -> FLOCK  ADVISORY  WRITE 412 08:01:77 0 EOF
3: FLOCK  ADVISORY  WRITE 500 00:2a:78 0 EOF
4: FLOCK  ADVISORY  READ  501 08:01:79 0 EOF
5: FLOCK  ADVISORY  WRITE 600 00:10:80 0 EOF
6: FLOCK  ADVISORY  WRITE 601 00:11:80 0 EOF
7: FLOCK  ADVISORY  WRITE 0 08:01:81 0 EOF
";

    #[test]
    fn the_holder_is_the_flock_writer_of_the_inode() {
        let device = rustix::fs::makedev(8, 1);
        let find = |inode| find_holder(LOCKS, Identity { device, inode });
        assert_eq!(find(77), Some(411));
        assert_eq!(find(78), Some(500), "another device number, one candidate");
        assert_eq!(find(79), None, "shared locks are not in the way of nobody we know");
        assert_eq!(find(80), None, "two candidates");
        assert_eq!(find(81), None, "a process we cannot see");
        assert_eq!(find(82), None);
    }
}
