//! `verify`: what is planted is found, what zot leaves is clean, and nothing is written.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "../support/mod.rs"]
mod support;

mod buckets;
mod crowd;
mod encode;
mod faults;
mod live;
mod output;
mod planted;
mod plants;
mod readonly;
mod recorded;
mod remote;
mod run;
mod runtime;
mod state;
mod state_file;
mod wide;
mod world;
