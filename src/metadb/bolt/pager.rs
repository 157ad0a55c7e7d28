//! Pages of one committed tree, read on demand and checked against its meta page.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use super::BoltError;
use super::file::{FileLayer, read_full};
use super::page::{BucketHeader, Element, FREELIST, HEADER, Header, META_LEN, Meta, NO_FREELIST, Node, PAGE_SIZES};
use super::page::{recognise, u64_at};

/// Both meta pages as they stood at one moment, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metas {
    raw: [Vec<u8>; 2],
    pub page_size: u32,
}

impl Metas {
    /// Read both meta pages. With `page_size` unknown it is taken from whichever meta page is valid.
    pub(super) fn read(layer: &dyn FileLayer, path: &Path, page_size: Option<u32>) -> Result<Self, BoltError> {
        let first = read_up_to(layer, path, 0, META_LEN)?;
        let page_size = match (page_size, Meta::parse(&first)) {
            (Some(known), _) => known,
            (None, Ok(meta)) => meta.page_size,
            (None, Err(flaw)) => match Self::search(layer, path)? {
                Some(size) => size,
                None => return Err(Self::explain(layer, path, &first, &flaw)),
            },
        };
        let second = read_up_to(layer, path, page_size.into(), META_LEN)?;
        Ok(Self { raw: [first, second], page_size })
    }

    /// Look for a valid second meta page: it lies one page behind the first, whatever a page is.
    fn search(layer: &dyn FileLayer, path: &Path) -> Result<Option<u32>, BoltError> {
        let mut size = *PAGE_SIZES.start();
        while PAGE_SIZES.contains(&size) {
            let raw = read_up_to(layer, path, size.into(), META_LEN)?;
            if Meta::parse(&raw).is_ok_and(|meta| meta.page_size == size) {
                return Ok(Some(size));
            }
            size = size.saturating_mul(2);
        }
        Ok(None)
    }

    fn explain(layer: &dyn FileLayer, path: &Path, first: &[u8], flaw: &str) -> BoltError {
        if first.is_empty() {
            return BoltError::not_bolt(path, "it is empty");
        }
        if let Some(what) = recognise(first) {
            return BoltError::not_bolt(path, what);
        }
        let size = layer.len().map_or_else(|_| String::new(), |len| format!(" (file of {len} bytes)"));
        BoltError::not_bolt(path, format!("neither meta page is valid: {flaw}{size}"))
    }

    /// The valid meta pages, newest first, each with its slot.
    pub(super) fn valid(&self) -> Vec<(u64, Meta)> {
        let mut found: Vec<_> = (0..)
            .zip(&self.raw)
            .filter_map(|(slot, raw)| Some((slot, Meta::parse(raw).ok()?)))
            .filter(|(_, meta)| meta.page_size == self.page_size)
            .collect();
        found.sort_by_key(|(_, meta)| std::cmp::Reverse(meta.txid));
        found
    }

    /// The newest valid meta page and its slot.
    pub(super) fn newest(&self, path: &Path) -> Result<(u64, Meta), BoltError> {
        let newest = self.valid().into_iter().next();
        newest.ok_or_else(|| BoltError::damaged(path, 0, "neither meta page is valid"))
    }

    /// Whether both slots hold nothing but zeros, as after a crash during the creation of the file.
    pub(super) fn are_blank(layer: &dyn FileLayer, path: &Path, page_size: u32) -> Result<bool, BoltError> {
        let raw =
            [read_up_to(layer, path, 0, META_LEN)?, read_up_to(layer, path, page_size.into(), META_LEN)?].concat();
        Ok(raw.iter().all(|byte| *byte == 0))
    }
}

fn read_up_to(layer: &dyn FileLayer, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>, BoltError> {
    let mut buf = vec![0; len];
    let read = read_full(layer, &mut buf, offset).map_err(|error| BoltError::io("read", path, error))?;
    buf.truncate(read);
    Ok(buf)
}

/// Reads the pages of one tree. Every page id is bounded by that tree's high-water mark.
#[derive(Clone, Copy)]
pub(super) struct Pager<'a> {
    pub layer: &'a dyn FileLayer,
    pub path: &'a Path,
    pub page_size: u64,
    pub high_water: u64,
}

impl<'a> Pager<'a> {
    pub(super) fn new(layer: &'a dyn FileLayer, path: &'a Path, meta: &Meta) -> Self {
        Self { layer, path, page_size: meta.page_size.into(), high_water: meta.high_water }
    }

    pub(super) fn damaged(&self, page: u64, detail: impl Into<String>) -> BoltError {
        BoltError::damaged(self.path, page, detail)
    }

    fn read(&self, page: u64, offset: u64, buf: &mut [u8]) -> Result<(), BoltError> {
        let at = page.saturating_mul(self.page_size).saturating_add(offset);
        let read = read_full(self.layer, buf, at).map_err(|error| BoltError::io("read", self.path, error))?;
        if read < buf.len() {
            return Err(self.damaged(page, "it lies beyond the end of the file"));
        }
        Ok(())
    }

    /// Read `len` bytes of a page, after making sure the file has them: no damaged length makes us allocate more
    /// memory than there is file.
    fn read_vec(&self, page: u64, offset: u64, len: u64) -> Result<Vec<u8>, BoltError> {
        const TRUSTED: u64 = 1 << 20;
        if len > TRUSTED {
            let end = page.saturating_mul(self.page_size).saturating_add(offset).saturating_add(len);
            let size = self.layer.len().map_err(|error| BoltError::io("stat", self.path, error))?;
            if end > size {
                return Err(self.damaged(page, "it lies beyond the end of the file"));
            }
        }
        let len = usize::try_from(len).map_err(|_| self.damaged(page, "larger than memory"))?;
        let mut buf = vec![0; len];
        self.read(page, offset, &mut buf)?;
        Ok(buf)
    }

    /// First page, header and extent in bytes of what lives at `id`.
    fn load(&self, id: u64) -> Result<(Vec<u8>, Header, u64), BoltError> {
        if id < 2 || id >= self.high_water {
            return Err(self.damaged(id, format!("its id is outside 2..{}", self.high_water)));
        }
        let data = self.read_vec(id, 0, self.page_size)?;
        let header = Header::parse(&data).ok_or_else(|| self.damaged(id, "page shorter than its header"))?;
        if header.id != id {
            return Err(self.damaged(id, format!("it says it is page {}", header.id)));
        }
        if u64::from(header.overflow) >= self.high_water.saturating_sub(id) {
            return Err(self.damaged(id, format!("its {} overflow pages pass the high-water mark", header.overflow)));
        }
        let extent = u64::from(header.overflow).saturating_add(1).saturating_mul(self.page_size);
        Ok((data, header, extent))
    }

    /// The branch or leaf page `id`: its first page, and of the overflow only what the element table needs.
    pub(super) fn node(&self, id: u64) -> Result<Node, BoltError> {
        self.node_up_to(id, 0)
    }

    /// The branch or leaf page `id` with all its overflow pages, unless they hold a value so large that it is better read
    /// alone, or not at all.
    pub(super) fn whole_node(&self, id: u64) -> Result<Node, BoltError> {
        const LARGE: u64 = 1 << 20;
        self.node_up_to(id, LARGE)
    }

    fn node_up_to(&self, id: u64, limit: u64) -> Result<Node, BoltError> {
        let (mut data, header, extent) = self.load(id)?;
        let table = Node::table_end(header) as u64;
        let end = if extent <= limit { extent } else { table };
        if end > self.page_size && end <= extent {
            data.extend(self.read_vec(id, self.page_size, end.saturating_sub(self.page_size))?);
        }
        Node::new(id, data, extent).map_err(|flaw| self.damaged(id, flaw))
    }

    /// Element `index` of a node.
    pub(super) fn element(&self, node: &Node, index: usize) -> Result<Element, BoltError> {
        node.element(index).ok_or_else(|| self.damaged(node.id, format!("it has no element {index}")))
    }

    fn bytes<'n>(&self, node: &'n Node, at: u64, len: u64) -> Result<Cow<'n, [u8]>, BoltError> {
        match node.in_memory(at, len) {
            Some(bytes) => Ok(Cow::Borrowed(bytes)),
            // An inline page is always in memory; its id 0 must not be taken for the file's first page.
            None if node.id == 0 => Err(self.damaged(0, "an inline bucket ends early")),
            None => self.read_vec(node.id, at, len).map(Cow::Owned),
        }
    }

    /// The key of element `index`.
    pub(super) fn key<'n>(&self, node: &'n Node, index: usize) -> Result<Cow<'n, [u8]>, BoltError> {
        let element = self.element(node, index)?;
        self.bytes(node, element.key, element.key_len)
    }

    /// The value of `element`; reads overflow pages if it lies in them.
    pub(super) fn value<'n>(&self, node: &'n Node, element: Element) -> Result<Cow<'n, [u8]>, BoltError> {
        self.bytes(node, element.value(), element.value_len)
    }

    /// Index of the first element of `node` whose key is not below `key`, and whether it equals it.
    pub(super) fn search(&self, node: &Node, key: &[u8]) -> Result<(usize, bool), BoltError> {
        let (mut low, mut high) = (0, node.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.key(node, middle)?.as_ref().cmp(key) {
                std::cmp::Ordering::Less => low = middle.saturating_add(1),
                std::cmp::Ordering::Equal => return Ok((middle, true)),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok((low, false))
    }

    /// Index of the child of branch `node` that covers `key`. Keys below all children belong to the first one.
    pub(super) fn child_for(&self, node: &Node, key: &[u8]) -> Result<usize, BoltError> {
        let (index, found) = self.search(node, key)?;
        Ok(if found { index } else { index.saturating_sub(1) })
    }

    /// Child `index` of branch `node`, and the pages behind it for as long as the next children are among them.
    pub(super) fn neighbours(&self, node: &Node, index: usize) -> Range<u64> {
        /// Pages between two children: what the first overflows into, and a few that are not worth another read.
        const GAP: u64 = 6;
        let mut children = (index..node.len()).map_while(|at| node.element(at)).map(|element| element.child);
        let start = children.next().unwrap_or_default();
        let mut last = start;
        for child in children {
            if child <= last || child.saturating_sub(last) > GAP {
                break;
            }
            last = child;
        }
        // The last one overflows, too, if those before it do; a page more costs little.
        start..last.saturating_add(2).min(self.high_water)
    }

    /// Say which pages will be read soon.
    pub(super) fn expect(&self, pages: &Range<u64>) {
        self.layer.expect(pages.start.saturating_mul(self.page_size)..pages.end.saturating_mul(self.page_size));
    }

    /// The header of the bucket in `value`, which was found in page `page`.
    pub(super) fn bucket_header<'v>(&self, page: u64, value: &'v [u8]) -> Result<BucketHeader<'v>, BoltError> {
        BucketHeader::parse(value).map_err(|flaw| self.damaged(page, flaw))
    }

    /// The page of an inline bucket that was found in page `page`.
    pub(super) fn inline_node(&self, page: u64, bytes: &[u8]) -> Result<Node, BoltError> {
        Node::inline(bytes).map_err(|flaw| self.damaged(page, format!("inline bucket: {flaw}")))
    }

    /// The stored freelist, sorted, and the number of pages it occupies; `None` if the file stores none.
    pub(super) fn freelist(&self, id: u64) -> Result<Option<(Vec<u64>, u64)>, BoltError> {
        if id == NO_FREELIST {
            return Ok(None);
        }
        let (data, header, extent) = self.load(id)?;
        if header.flags != FREELIST {
            return Err(self.damaged(id, format!("type flags {:#x} where the freelist is expected", header.flags)));
        }
        let (start, count) = match header.count {
            // A count that does not fit into 16 bits stands in front of the ids.
            0xFFFF => (HEADER.saturating_add(8), u64_at(&data, HEADER).unwrap_or(u64::MAX)),
            count => (HEADER, u64::from(count)),
        };
        let start = start as u64;
        let bytes = count.saturating_mul(8);
        if count > self.high_water || start.saturating_add(bytes) > extent {
            return Err(self.damaged(id, format!("{count} free pages do not fit into the freelist")));
        }
        let raw = self.read_vec(id, start, bytes)?;
        let mut ids: Vec<u64> = raw.as_chunks::<8>().0.iter().map(|chunk| u64::from_le_bytes(*chunk)).collect();
        ids.sort_unstable();
        for pair in ids.array_windows::<2>() {
            if pair[0] == pair[1] {
                return Err(self.damaged(id, format!("page {} is listed as free twice", pair[0])));
            }
        }
        if let Some(outside) = ids.iter().find(|free| **free < 2 || **free >= self.high_water) {
            return Err(self.damaged(id, format!("free page {outside} is outside 2..{}", self.high_water)));
        }
        Ok(Some((ids, u64::from(header.overflow).saturating_add(1))))
    }
}
