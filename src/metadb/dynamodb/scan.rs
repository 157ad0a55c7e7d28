//! Whole tables, read in parallel segments. Every page counts: one that fails fails the scan, so that a listing is
//! complete or an error. (zot takes a failing later page for the end.)

use super::connect::Link;
use super::errors::{Fault, Request};
use super::items::Item;
use crate::metadb::MetaDbError;
use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use std::pin::pin;

/// Bytes of a table for which one more segment is worth its requests; a page holds one megabyte.
const SEGMENT: u64 = 2 << 20;
/// Most segments: each holds a page in memory.
const SEGMENTS: i32 = 32;

/// What to read.
#[derive(Clone, Copy)]
pub struct Scan<'a> {
    pub table: &'a str,
    /// Attributes that are wanted.
    pub attributes: &'a [&'a str],
    /// Size of the table, as far as the service knows.
    pub bytes: u64,
}

impl Link {
    /// Hand every item to `visit`, in no particular order. `visit` must not ask this metaDB anything.
    pub fn scan(
        &self,
        scan: Scan<'_>,
        visit: &mut dyn FnMut(Item) -> Result<(), MetaDbError>,
    ) -> Result<(), MetaDbError> {
        let segments = i32::try_from(scan.bytes / SEGMENT).unwrap_or(SEGMENTS).clamp(1, SEGMENTS);
        let pages = stream::iter(0..segments).flat_map_unordered(None, |segment| self.pages(scan, segment, segments));
        self.run(async {
            let mut pages = pin!(pages);
            while let Some(page) = pages.next().await {
                for item in page.map_err(|fault| self.error("read", fault))? {
                    visit(item)?;
                }
            }
            Ok(())
        })
    }

    /// The pages of one segment. Ends after the last or at the first error.
    fn pages<'a>(&'a self, scan: Scan<'a>, segment: i32, segments: i32) -> BoxStream<'a, Result<Vec<Item>, Fault>> {
        let request = Request { action: "Scan", table: scan.table, units: 1.0, write: false };
        let mut asked = self.client.scan().table_name(scan.table).consistent_read(true);
        asked = asked.return_consumed_capacity(ReturnConsumedCapacity::Total);
        if segments > 1 {
            asked = asked.segment(segment).total_segments(segments);
        }
        let names: Vec<String> = (0..scan.attributes.len()).map(|number| format!("#a{number}")).collect();
        asked = asked.projection_expression(names.join(", "));
        for (name, attribute) in names.into_iter().zip(scan.attributes) {
            asked = asked.expression_attribute_names(name, *attribute);
        }
        Box::pin(stream::try_unfold(Some(None), move |from: Option<Option<Item>>| {
            let asked = asked.clone();
            async move {
                let Some(from) = from else { return Ok(None) };
                let page = self.call(request, || asked.clone().set_exclusive_start_key(from.clone()).send()).await?;
                let next = page.last_evaluated_key.filter(|key| !key.is_empty()).map(Some);
                Ok(Some((page.items.unwrap_or_default(), next)))
            }
        }))
    }
}
