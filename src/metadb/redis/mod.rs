//! zot's metaDB in Redis: keys and rules (spec §4.3, §5.2).
//!
//! Reading takes no lock and writes nothing. Writing works beside a running zot: every repo is read, computed and
//! written under zot's own lock of that repo, and the script that writes it checks that the lock is still ours, so that
//! a stalled metactl can never overwrite what zot did meanwhile. A lock of metactl's own (one more key under the prefix,
//! which zot ignores) keeps two walks apart.
//!
//! Redis may lose what it acknowledged: a replica that takes over may lag behind. Every write therefore counts up under
//! the walk lock, and every later one checks that the count is still there: a walk never stamps over a loss.

mod blob_cache;
mod cast;
mod connect;
mod errors;
mod group;
mod keys;
mod options;
mod query;
mod reader;
mod scripts;
mod url;
mod walk_lock;
mod wire;
mod writer;

pub use blob_cache::RedisBlobCache;
pub use options::{RedisOptions, TlsFiles};
pub use reader::RedisMetaDb;
pub use writer::RedisWriter;

use keys::Keys;

/// Why a prefix cannot work on a cluster, and which one would.
fn untagged(keys: &Keys) -> String {
    format!(
        "its keys fall into several slots of the Redis Cluster, so that neither zot nor metactl can write a repo's \
         records together; a keyprefix with a hash tag keeps them in one: \"{{{}}}\"",
        keys.prefix()
    )
}
