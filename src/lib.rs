//! metactl looks after the metaDB of a zot OCI registry: it shows, writes and clears the fast-restart
//! stamp, performs the storage walk and verifies that storage and metaDB agree.
//!
//! Data flows one way, and every arrow is one module:
//!
//! ```text
//! registry config ─► effective storage config ─► fingerprint ─┐
//! zot binary / URL / flags ──────────────────► identity ──────┴► expected stamp ─┐
//! metaDB ─► stored stamp ────────────────────────────────────────────────────────┴► decision: skip | walk(reason)
//! image store ─► repo list ─► plan (new, changed, unchanged, gone) ─► per repo: blobs ─► documents ─► records
//!             ─► metaDB writer ─► stamp ─► report
//! image store + metaDB ─► findings (verify) ─► state file
//! ```
//!
//! The library knows no terminal: everything that talks to a person lives in the binary's `cli` module.

pub mod cancel;
pub mod checksum;
pub mod config;
mod crew;
pub mod decision;
pub mod error;
pub mod fingerprint;
pub mod gojson;
pub mod hex;
pub mod identity;
pub mod metadb;
pub mod oci;
pub mod panics;
pub mod parallel;
pub mod progress;
pub mod records;
pub mod secret;
pub mod stamp;
pub mod state;
pub mod storage;
pub mod verify;
pub mod walk;
