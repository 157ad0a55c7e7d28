//! Search of a file for the strings that Go's linker planted with `-X` (spec: "Binary identity" §5.3).
//!
//! The linker writes each as a NUL-terminated string, aligned to the largest power of two not above its size with the NUL,
//! at most 32. Files are read in windows that overlap by more than the longest match, so memory is bounded whatever
//! their size.

use super::buildinfo::read_full;
use super::commit::{is_hex, is_tag_char, parse_commit};
use memchr::{memchr_iter, memmem};
use std::collections::BTreeMap;
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

/// Alignment of a planted string of `length` bytes without its NUL.
fn alignment(length: usize) -> u64 {
    1 << (length + 1).ilog2().min(5)
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

/// Every planted string that has the form of a commit, with its offset.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn commits(file: &File) -> io::Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    windows(file, 0..u64::MAX, |base, window| {
        for dash in memchr_iter(b'-', window) {
            for start in commit_at(base, window, dash) {
                let text = window.get(start..).unwrap_or_default();
                let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
                if let Ok(text) = std::str::from_utf8(text)
                    && found.len() < MOST
                {
                    found.entry(text.to_owned()).or_insert(base + start as u64);
                }
            }
        }
        true
    })?;
    Ok(found)
}

/// Starts of planted commits whose hash follows the dash at `dash`.
fn commit_at(base: u64, window: &[u8], dash: usize) -> Vec<usize> {
    let Some(hash) = window.get(dash + 1..) else { return Vec::new() };
    // Cheap refusals first: a binary holds millions of dashes.
    let (described, hash) = match hash.first() {
        Some(b'g') => (true, hash.get(1..).unwrap_or_default()),
        Some(byte) if is_hex(*byte) => (false, hash),
        _ => return Vec::new(),
    };
    let digits = hash.iter().take(41).take_while(|byte| is_hex(**byte)).count();
    if !(if described { 4..=40 } else { 40..=40 }).contains(&digits) {
        return Vec::new();
    }
    let rest = hash.get(digits..).unwrap_or_default();
    if rest.strip_prefix(b"-dirty").unwrap_or(rest).first() != Some(&0) {
        return Vec::new();
    }
    let before = window.get(..dash).unwrap_or_default();
    let run = before.iter().rev().take(LONGEST).take_while(|byte| is_tag_char(**byte)).count();
    let end = window.len() - rest.len() + if rest.starts_with(b"-dirty") { 6 } else { 0 };
    let valid = |start: &usize| {
        let text = window.get(*start..end).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default();
        (base + *start as u64) % alignment(text.len()) == 0
            && (described || text.starts_with('v'))
            && parse_commit(text).is_some_and(|commit| commit.tag.is_some())
    };
    let mut starts = (dash - run..dash).filter(valid).peekable();
    // What stands before a planted string is anything; but if it is no tag character, there is only one beginning.
    match starts.peek() {
        Some(first) if *first == dash - run => vec![*first],
        _ => starts.collect(),
    }
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
            let aligned = |at: usize| (base + at as u64) % alignment(finder.needle().len() - 1) == 0;
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
            let aligned = (base + at as u64) % alignment(text.len()) == 0;
            if aligned && revision.starts_with(hash) && !found.iter().any(|other| other == text) {
                found.push(text.to_owned());
            }
        }
        true
    })?;
    Ok(found)
}
