//! What several suites share: recorded stores, raw dumps of both drivers, and a decoder of zot's records that has
//! nothing in common with the library's.
#![allow(dead_code, reason = "no suite uses everything")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

pub mod blob_cache;
pub mod bucket;
pub mod command;
pub mod disk;
pub mod driver;
pub mod dynamodb;
pub mod equality;
pub mod model;
pub mod proxy;
pub mod records;
pub mod redis;
pub mod registry;
pub mod server;
pub mod setups;
pub mod store;
pub mod walk;
pub mod work;
