//! Search of a file for the strings that Go's linker planted with `-X` (spec: "Binary identity" §5.3).
//!
//! The linker writes each as a NUL-terminated string, aligned to the largest power of two not above its size with the NUL,
//! at most 32. Files are read in windows that overlap by more than the longest match, so memory is bounded whatever
//! their size.

use super::buildinfo::read_full;
use super::commit::{is_hex, is_tag_char, parse_commit};
use memchr::{memchr_iter, memmem};
use std::fs::File;
use std::io;
use std::ops::Range;

const WINDOW: usize = 1 << 20;
/// Overlap of two windows; longer than anything that is searched for.
const OVERLAP: usize = 1024;
/// Longest commit or tag that is found.
const LONGEST: usize = 256;
/// Most different commits that are kept; a genuine binary has one.
const MOST: usize = 32;

/// Whether the linker could have put a string of `length` bytes (without its NUL) at `at` of the window at `base`.
///
/// The rule is about addresses; containers keep file offsets congruent to them far beyond 32.
fn is_aligned(base: u64, at: usize, length: usize) -> bool {
    (base + at as u64).is_multiple_of(1 << (length + 1).ilog2().min(5))
}

/// Show `each` the range of `file` in overlapping windows, with the offset of each, until it returns `false`.
pub(super) fn windows(file: &File, range: Range<u64>, mut each: impl FnMut(u64, &[u8]) -> bool) -> io::Result<()> {
    let mut buffer = vec![0; WINDOW];
    let mut base = range.start;
    while base < range.end {
        let want = usize::try_from(range.end - base).unwrap_or(WINDOW).min(WINDOW);
        let got = read_full(file, buffer.get_mut(..want).unwrap_or_default(), base)?;
        if !each(base, buffer.get(..got).unwrap_or_default()) || got < WINDOW {
            break;
        }
        base += (WINDOW - OVERLAP) as u64;
    }
    Ok(())
}

/// Readings of one planted string that has the form of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hit {
    /// All aligned readings, longest first; they end at the same NUL.
    pub(super) readings: Vec<String>,
    /// The longest begins where no tag character stands before it. Otherwise the beginning may be part of something else.
    pub(super) whole: bool,
}

/// Every string that could be a planted commit, each once.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn commits(file: &File) -> io::Result<Vec<Hit>> {
    let mut found: Vec<Hit> = Vec::new();
    windows(file, 0..u64::MAX, |base, window| {
        for dash in memchr_iter(b'-', window) {
            if let Some(hit) = commit_at(base, window, dash)
                && found.len() < MOST
                && !found.contains(&hit)
            {
                found.push(hit);
            }
        }
        true
    })?;
    Ok(found)
}

/// The planted commit whose hash follows the dash at `dash`.
fn commit_at(base: u64, window: &[u8], dash: usize) -> Option<Hit> {
    let hash = window.get(dash + 1..)?;
    // Cheap refusals first: a binary holds millions of dashes.
    let (described, hash) = match hash.first()? {
        b'g' => (true, hash.get(1..)?),
        byte if is_hex(*byte) => (false, hash),
        _ => return None,
    };
    let digits = hash.iter().take(41).take_while(|byte| is_hex(**byte)).count();
    if !(if described { 4..=40 } else { 40..=40 }).contains(&digits) {
        return None;
    }
    let rest = hash.get(digits..)?;
    let rest = rest.strip_prefix(b"-dirty").unwrap_or(rest);
    if rest.first() != Some(&0) {
        return None;
    }
    let end = window.len() - rest.len();
    let before = window.get(..dash)?;
    let run = before.iter().rev().take(LONGEST).take_while(|byte| is_tag_char(**byte)).count();
    // A window that begins within the string shows less than the one before it did.
    if run == dash && base > 0 {
        return None;
    }
    let reading = |start: usize| {
        let text = std::str::from_utf8(window.get(start..end)?).ok()?;
        let planted = is_aligned(base, start, text.len())
            && text.starts_with(|first: char| first.is_ascii_alphanumeric() && (described || first == 'v'))
            && parse_commit(text).is_some_and(|commit| commit.tag.is_some());
        planted.then(|| text.to_owned())
    };
    let first = dash - run;
    let whole = run < LONGEST && reading(first).is_some();
    let readings: Vec<String> = (first..dash).filter_map(reading).collect();
    (!readings.is_empty()).then_some(Hit { readings, whole })
}

/// Which of `texts` are planted in the file.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn planted(file: &File, texts: &[&str]) -> io::Result<Vec<bool>> {
    let needles: Vec<Vec<u8>> = texts.iter().map(|text| [text.as_bytes(), b"\0"].concat()).collect();
    let finders: Vec<memmem::Finder<'_>> = needles.iter().map(memmem::Finder::new).collect();
    // Longer ones could fall between two windows; nothing that long was ever planted.
    let mut found: Vec<bool> = vec![false; texts.len()];
    let sought = |index: usize| texts.get(index).is_some_and(|text| !text.is_empty() && text.len() <= LONGEST);
    windows(file, 0..u64::MAX, |base, window| {
        for (index, (finder, found)) in finders.iter().zip(&mut found).enumerate() {
            let aligned = |at: usize| is_aligned(base, at, finder.needle().len() - 1);
            *found = *found || (sought(index) && finder.find_iter(window).any(aligned));
        }
        !found.iter().all(|found| *found)
    })?;
    Ok(found)
}

/// Planted bare hashes that begin the full hash `revision`, possibly with `-dirty`: commits of builds without tags.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn bare_commits(file: &File, revision: &str) -> io::Result<Vec<String>> {
    let Some(short) = revision.get(..7).filter(|_| revision.bytes().all(is_hex) && revision.len() <= 64) else {
        return Ok(Vec::new());
    };
    let finder = memmem::Finder::new(short);
    let mut found: Vec<String> = Vec::new();
    windows(file, 0..u64::MAX, |base, window| {
        for at in finder.find_iter(window) {
            let text = window.get(at..).unwrap_or_default();
            let text = text.iter().take(LONGEST).position(|byte| *byte == 0).and_then(|end| text.get(..end));
            let Some(text) = text.and_then(|text| std::str::from_utf8(text).ok()) else { continue };
            let hash = text.strip_suffix("-dirty").unwrap_or(text);
            let aligned = is_aligned(base, at, text.len());
            if aligned && revision.starts_with(hash) && !found.iter().any(|other| other == text) {
                found.push(text.to_owned());
            }
        }
        true
    })?;
    Ok(found)
}
