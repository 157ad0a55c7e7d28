//! The BlobInfo of an image, written from where its parts are: most of what a RepoBlobs record holds.

use super::image::ImageEntry;
use super::parts::{Value, delimited};
use super::proto;
use super::wire::length_delimited;
use crate::oci::time::Time;
use prost::bytes::BufMut;
use prost::encoding::{int64, message, string};

/// What [`ImageEntry::blob_info`] copies.
pub struct ImageInfo<'a> {
    image: &'a ImageEntry,
    last_updated: proto::Timestamp,
}

impl<'a> ImageInfo<'a> {
    /// `newest`: time of the newest child of an index.
    #[must_use]
    pub fn of(image: &'a ImageEntry, newest: Time) -> Self {
        Self { image, last_updated: image.last_updated(|_| newest).into() }
    }
}

impl Value for ImageInfo<'_> {
    fn length(&self) -> usize {
        let Self { image, last_updated } = self;
        let size = if image.size == 0 { 0 } else { int64::encoded_len(1, &image.size) };
        size + string::encoded_len_repeated(2, image.content.vendors())
            + image.content.digests().map(|digest| delimited(3, digest.len())).sum::<usize>()
            + message::encoded_len_repeated(4, image.content.platforms())
            + message::encoded_len(5, last_updated)
    }

    fn put(&self, out: &mut impl BufMut) {
        let Self { image, last_updated } = self;
        if image.size != 0 {
            int64::encode(1, &image.size, out);
        }
        string::encode_repeated(2, image.content.vendors(), out);
        image.content.digests().for_each(|digest| length_delimited(out, 3, &[digest.as_bytes()]));
        message::encode_repeated(4, image.content.platforms(), out);
        message::encode(5, last_updated, out);
    }
}
