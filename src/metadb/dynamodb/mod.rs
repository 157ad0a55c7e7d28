//! zot's metaDB in DynamoDB: tables, items and rules (spec §4.4, §5.3).
//!
//! DynamoDB has no locks, and zot overwrites what it read without a condition. So every write of a repo carries the
//! condition that its records still are the bytes that were read; if they are not, they are read and built again. That
//! protects zot's writes from metactl; nothing protects metactl's from a zot that has read the records before.
//!
//! A repo lies in two tables and is written in two steps, RepoMeta first, RepoLastUpdated last: whatever happens in
//! between, the next walk reads the repo again. Writes touch zot's own attributes only. Reads are always consistent.
//!
//! Requests run on a runtime of this module's own, many at once; `throttle` decides how many.

mod blob_cache;
mod connect;
mod errors;
mod items;
mod options;
mod reader;
mod repos;
mod scan;
mod size;
mod tables;
mod throttle;
mod users;
mod writer;

pub use blob_cache::{DynamoDbBlobCache, DynamoDbBlobCacheOptions};
pub(crate) use connect::https;
pub use options::{DynamoDbOptions, location};
pub use reader::DynamoDbMetaDb;
pub use writer::DynamoDbWriter;
