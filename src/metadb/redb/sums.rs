//! Record tables with a table of checksums beside each, written in the same transaction, so that who asks for all keys, or
//! for what changed, does not read all records: redb keeps them in the leaves that it would pass through.
//!
//! Files of before these tables were kept are read without them and get them from the next writer. A table of checksums
//! counts only if it has as many rows as there are records, which is all that a reader can afford to check. Should
//! [`checksum`] ever change, these tables need other names.

use crate::checksum::{Checksum, checksum};
use redb::{
    AccessGuard, ReadOnlyTable, ReadTransaction, ReadableTable as _, ReadableTableMetadata as _, Table,
    TableDefinition, TableError, WriteTransaction,
};

pub(super) type Records = TableDefinition<'static, &'static str, &'static [u8]>;
type Sums = TableDefinition<'static, &'static str, Checksum>;

/// A table of records and that of their checksums.
#[derive(Clone, Copy)]
pub(super) struct Kept {
    pub records: Records,
    sums: Sums,
}

/// All that are kept like this: the records that storage accounts for.
pub(super) const ALL: [Kept; 4] = [IMAGES, REPOS, BLOBS, LAST_UPDATED];
pub(super) const IMAGES: Kept = Kept::new("ImageMeta", "ImageMetaSums");
pub(super) const REPOS: Kept = Kept::new("RepoMeta", "RepoMetaSums");
pub(super) const BLOBS: Kept = Kept::new("RepoBlobsMeta", "RepoBlobsMetaSums");
pub(super) const LAST_UPDATED: Kept = Kept::new("RepoLastUpdated", "RepoLastUpdatedSums");

/// Both, open for writing.
pub(super) struct OpenKept<'t> {
    records: Table<'t, &'static str, &'static [u8]>,
    sums: Table<'t, &'static str, Checksum>,
}

impl Kept {
    const fn new(records: &'static str, sums: &'static str) -> Self {
        Self { records: TableDefinition::new(records), sums: TableDefinition::new(sums) }
    }

    pub fn open(self, transaction: &WriteTransaction) -> Result<OpenKept<'_>, redb::Error> {
        Ok(OpenKept { records: transaction.open_table(self.records)?, sums: transaction.open_table(self.sums)? })
    }

    /// Every key and the checksum of its record.
    pub fn each(self, transaction: &ReadTransaction, mut visit: impl FnMut(&str, Checksum)) -> Result<(), redb::Error> {
        let Some(records) = existing(transaction.open_table(self.records))? else { return Ok(()) };
        match self.complete_sums(transaction, &records)? {
            Some(sums) => {
                for entry in sums.iter()? {
                    let (key, sum) = entry?;
                    visit(key.value(), sum.value());
                }
            }
            None => {
                for entry in records.iter()? {
                    let (key, record) = entry?;
                    visit(key.value(), checksum(record.value()));
                }
            }
        }
        Ok(())
    }

    /// Whether every record has its checksum.
    pub fn is_complete(self, transaction: &ReadTransaction) -> Result<bool, redb::Error> {
        let Some(records) = existing(transaction.open_table(self.records))? else { return Ok(false) };
        Ok(self.complete_sums(transaction, &records)?.is_some())
    }

    fn complete_sums(
        self,
        transaction: &ReadTransaction,
        records: &ReadOnlyTable<&'static str, &'static [u8]>,
    ) -> Result<Option<ReadOnlyTable<&'static str, Checksum>>, redb::Error> {
        let Some(sums) = existing(transaction.open_table(self.sums))? else { return Ok(None) };
        Ok((sums.len()? == records.len()?).then_some(sums))
    }

    /// Make the table of checksums anew.
    pub fn complete(self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        transaction.delete_table(self.sums)?;
        let OpenKept { records, mut sums } = self.open(transaction)?;
        for entry in records.iter()? {
            let (key, record) = entry?;
            sums.insert(key.value(), checksum(record.value()))?;
        }
        Ok(())
    }
}

impl OpenKept<'_> {
    /// Of a record that is not there, no page is read that holds others: the checksums say so.
    pub fn get(&self, key: &str) -> Result<Option<AccessGuard<'_, &'static [u8]>>, redb::Error> {
        if self.sums.get(key)?.is_none() {
            return Ok(None);
        }
        Ok(self.records.get(key)?)
    }

    pub fn insert(&mut self, key: &str, record: &[u8]) -> Result<(), redb::Error> {
        self.records.insert(key, record)?;
        self.sums.insert(key, checksum(record))?;
        Ok(())
    }

    pub fn remove(&mut self, key: &str) -> Result<(), redb::Error> {
        self.records.remove(key)?;
        self.sums.remove(key)?;
        Ok(())
    }
}

fn existing<T>(table: Result<T, TableError>) -> Result<Option<T>, redb::Error> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
