//! The metaDB: zot's record store, behind one pair of traits for every driver (spec: "Backends").
pub mod bolt;
