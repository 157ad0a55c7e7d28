//! Layout of meta pages, branch and leaf pages, bucket headers: the only place that knows offsets.
//!
//! Everything parsed here is checked before it is used: a damaged or hostile file yields a flaw (a sentence for
//! the error message), never a panic and never a range outside the page.

#![deny(clippy::arithmetic_side_effects)]

use std::borrow::Cow;

/// Longest key in bytes.
pub const MAX_KEY: usize = 32_768;
/// Longest value in bytes.
pub const MAX_VALUE: usize = 2_147_483_646;

/// Page header, element and bucket header happen to have the same size.
pub(super) const HEADER: usize = 16;
/// Size of a leaf or branch element in the table behind the page header.
pub(super) const ELEMENT: usize = 16;
/// Page header and meta record together: all of a meta page that means anything.
pub(super) const META_LEN: usize = 80;

/// Page flags. Exactly one is set on a page.
pub(super) const BRANCH: u16 = 1;
pub(super) const LEAF: u16 = 2;
pub(super) const META: u16 = 4;
pub(super) const FREELIST: u16 = 16;
/// Leaf element flag: the value is a bucket.
pub(super) const BUCKET: u32 = 1;

/// Stands in a meta page's freelist field when no freelist is stored (`NoFreelistSync`).
pub(super) const NO_FREELIST: u64 = u64::MAX;
/// Page sizes believed in. Systems have 4 KiB to 64 KiB; bbolt itself searches from 1 KiB up.
pub(super) const PAGE_SIZES: std::ops::RangeInclusive<u32> = 1024..=1 << 20;
/// Deepest tree and deepest bucket nesting believed in; a real tree of 2^48 bytes has less than 20 levels.
pub(super) const MAX_DEPTH: usize = 64;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// Why a piece of the file cannot be what it claims to be.
pub(super) type Flaw = Cow<'static, str>;

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3))
}

/// What a meta page says: the root of a tree and the state of the file that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    pub page_size: u32,
    pub flags: u32,
    /// Root page of the root bucket.
    pub root: u64,
    /// Sequence of the root bucket.
    pub sequence: u64,
    pub freelist: u64,
    /// First page id never used so far.
    pub high_water: u64,
    pub txid: u64,
}

impl Meta {
    /// Parse the first [`META_LEN`] bytes of a meta page.
    pub(super) fn parse(raw: &[u8]) -> Result<Self, Flaw> {
        let short = || Flaw::from("the file ends within the meta page");
        let body = raw.get(HEADER..META_LEN.wrapping_sub(8)).ok_or_else(short)?;
        let word = |at| u32_at(raw, at).ok_or_else(short);
        let long = |at| u64_at(raw, at).ok_or_else(short);
        match word(16)? {
            MAGIC => {}
            other if other == MAGIC.swap_bytes() => return Err("written by a big-endian machine".into()),
            _ => return Err("no BoltDB magic".into()),
        }
        if word(20)? != VERSION {
            return Err(format!("format version {}, only {VERSION} is known", word(20)?).into());
        }
        if long(72)? != fnv1a(body) {
            return Err("wrong checksum".into());
        }
        let meta = Self {
            page_size: word(24)?,
            flags: word(28)?,
            root: long(32)?,
            sequence: long(40)?,
            freelist: long(48)?,
            high_water: long(56)?,
            txid: long(64)?,
        };
        if !PAGE_SIZES.contains(&meta.page_size) || !meta.page_size.is_power_of_two() {
            return Err(format!("page size {}", meta.page_size).into());
        }
        // Nobody has committed that often; the next two ids must be larger still.
        if meta.txid > u64::MAX - 2 {
            return Err(format!("transaction id {}", meta.txid).into());
        }
        // Keeps every page offset inside i64, which is what the system calls take.
        if meta.high_water < 3 || meta.high_water > (1_u64 << 62) >> meta.page_size.ilog2() {
            return Err(format!("high-water mark {}", meta.high_water).into());
        }
        Ok(meta)
    }

    /// The bytes of the meta page of `slot` (0 or 1).
    pub(super) fn encode(&self, slot: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(META_LEN);
        push_header(&mut out, slot, META, 0, 0);
        for word in [MAGIC, VERSION, self.page_size, self.flags] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for long in [self.root, self.sequence, self.freelist, self.high_water, self.txid] {
            out.extend_from_slice(&long.to_le_bytes());
        }
        let sum = fnv1a(out.get(HEADER..).unwrap_or_default());
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }
}

/// Append a page header.
pub(super) fn push_header(out: &mut Vec<u8>, id: u64, flags: u16, count: u16, overflow: u32) {
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&overflow.to_le_bytes());
}

/// The first 16 bytes of every page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub id: u64,
    pub flags: u16,
    pub count: u16,
    /// Pages that follow and belong to this one.
    pub overflow: u32,
}

impl Header {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            id: u64_at(bytes, 0)?,
            flags: u16_at(bytes, 8)?,
            count: u16_at(bytes, 10)?,
            overflow: u32_at(bytes, 12)?,
        })
    }
}

/// A bucket as it stands in its parent's leaf.
#[derive(Debug, Clone, Copy)]
pub(super) struct BucketHeader<'a> {
    /// Root page, 0 for an inline bucket.
    pub root: u64,
    pub sequence: u64,
    /// The leaf page of an inline bucket.
    pub inline: &'a [u8],
}

impl<'a> BucketHeader<'a> {
    pub(super) fn parse(value: &'a [u8]) -> Result<Self, Flaw> {
        let (Some(root), Some(sequence), Some(inline)) = (u64_at(value, 0), u64_at(value, 8), value.get(HEADER..))
        else {
            return Err(format!("bucket header of {} bytes", value.len()).into());
        };
        Ok(Self { root, sequence, inline })
    }

    /// The header without an inline page.
    pub(super) fn encode(root: u64, sequence: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER);
        out.extend_from_slice(&root.to_le_bytes());
        out.extend_from_slice(&sequence.to_le_bytes());
        out
    }
}

/// Position of one element's key and value, as offsets from the start of its page. Both lie inside the page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element {
    pub flags: u32,
    /// Child page of a branch element, 0 in a leaf.
    pub child: u64,
    pub key: u64,
    pub key_len: u64,
    pub value_len: u64,
}

impl Element {
    pub(super) fn value(&self) -> u64 {
        self.key.saturating_add(self.key_len)
    }

    pub(super) fn is_bucket(&self) -> bool {
        self.flags & BUCKET != 0
    }
}

/// A branch or leaf page, of which at least the element table is in memory.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Page id, 0 for the page of an inline bucket.
    pub id: u64,
    pub is_leaf: bool,
    count: u16,
    /// Pages that follow and belong to this one.
    pub overflow: u32,
    /// Length of the page and its overflow in bytes; `data` may be shorter.
    pub extent: u64,
    pub data: Vec<u8>,
}

impl Node {
    /// How many bytes from the start of the page the element table of `header` needs.
    pub(super) fn table_end(header: Header) -> usize {
        usize::from(header.count).saturating_mul(ELEMENT).saturating_add(HEADER)
    }

    /// Check a page whose table lies in `data`: type, every element's range, and the order of the keys at hand.
    pub(super) fn new(id: u64, data: Vec<u8>, extent: u64) -> Result<Self, Flaw> {
        let header = Header::parse(&data).ok_or("page shorter than its header")?;
        let is_leaf = match header.flags {
            LEAF => true,
            BRANCH => false,
            other => return Err(format!("type flags {other:#x} where a branch or leaf is expected").into()),
        };
        let node = Self { id, is_leaf, count: header.count, overflow: header.overflow, extent, data };
        node.validate(Self::table_end(header))?;
        Ok(node)
    }

    /// The leaf page inside an inline bucket's value.
    pub(super) fn inline(bytes: &[u8]) -> Result<Self, Flaw> {
        let extent = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let node = Self::new(0, bytes.to_vec(), extent)?;
        if !node.is_leaf || node.overflow != 0 {
            return Err("an inline bucket that is not a single leaf".into());
        }
        Ok(node)
    }

    fn validate(&self, table: usize) -> Result<(), Flaw> {
        if table > self.data.len() {
            return Err(format!("{} elements do not fit", self.count).into());
        }
        let table = u64::try_from(table).unwrap_or(u64::MAX);
        let mut used = table;
        let mut last: Option<&[u8]> = None;
        for index in 0..self.len() {
            let element = self.element(index).ok_or_else(|| Flaw::from(format!("element {index} is missing")))?;
            let end = element.value().saturating_add(element.value_len);
            if element.key < table || end > self.extent {
                return Err(format!("element {index} reaches outside the page").into());
            }
            if element.flags & !BUCKET != 0 {
                return Err(format!("element {index} has flags {:#x}", element.flags).into());
            }
            if element.key_len > MAX_KEY as u64 || (self.is_leaf && element.key_len == 0) {
                return Err(format!("element {index} has a key of {} bytes", element.key_len).into());
            }
            // Elements that share bytes could make a small file look like an endless one.
            used = used.saturating_add(element.key_len).saturating_add(element.value_len);
            if used > self.extent {
                return Err(format!("element {index} overlaps another one").into());
            }
            let key = self.in_memory(element.key, element.key_len);
            if let (Some(last), Some(key)) = (last, key)
                && key <= last
            {
                return Err(format!("the key of element {index} is not above the one before").into());
            }
            last = key;
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Decode element `index`; `None` past the end.
    pub(super) fn element(&self, index: usize) -> Option<Element> {
        if index >= self.len() {
            return None;
        }
        let at = index.checked_mul(ELEMENT)?.checked_add(HEADER)?;
        let from_start = |pos: u32| u64::try_from(at).ok()?.checked_add(u64::from(pos));
        if self.is_leaf {
            Some(Element {
                flags: u32_at(&self.data, at)?,
                child: 0,
                key: from_start(u32_at(&self.data, at.checked_add(4)?)?)?,
                key_len: u32_at(&self.data, at.checked_add(8)?)?.into(),
                value_len: u32_at(&self.data, at.checked_add(12)?)?.into(),
            })
        } else {
            Some(Element {
                flags: 0,
                child: u64_at(&self.data, at.checked_add(8)?)?,
                key: from_start(u32_at(&self.data, at)?)?,
                key_len: u32_at(&self.data, at.checked_add(4)?)?.into(),
                value_len: 0,
            })
        }
    }

    /// Bytes of the page, if they have been read.
    pub(super) fn in_memory(&self, at: u64, len: u64) -> Option<&[u8]> {
        let at = usize::try_from(at).ok()?;
        self.data.get(at..at.checked_add(usize::try_from(len).ok()?)?)
    }
}

/// What a file that is no BoltDB file looks like from its first bytes.
pub(super) fn recognise(start: &[u8]) -> Option<&'static str> {
    const KNOWN: [(&[u8], &str); 5] = [
        (b"redb\x1a\x0a\xa9\x0d\x0a", "it is a redb database"),
        (b"SQLite format 3\0", "it is an SQLite database"),
        (b"\x1f\x8b", "it is gzip-compressed"),
        (b"PK\x03\x04", "it is a zip archive"),
        (b"{", "it looks like JSON"),
    ];
    KNOWN.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, what)| *what)
}
