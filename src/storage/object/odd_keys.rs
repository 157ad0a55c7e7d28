//! Keys that the client library takes for no paths, such as `logs//x`: one of them would spoil the listing of a bucket that the
//! registry shares with others. No repository has such a name, so they are left out.

use super::http::element;
use object_store::path::Path;

/// What listings of the services are made of, and where each has its key.
const ENTRIES: [(&str, &str); 4] =
    [("Contents", "Key"), ("CommonPrefixes", "Prefix"), ("Blob", "Name"), ("BlobPrefix", "Name")];

/// A listing without them.
pub(super) fn leave_out(listing: &str) -> String {
    ENTRIES.into_iter().fold(listing.to_owned(), |text, (entry, key)| {
        let (begin, end) = (format!("<{entry}>"), format!("</{entry}>"));
        let (mut kept, mut rest) = (String::with_capacity(text.len()), text.as_str());
        while let Some((before, from)) = rest.split_once(&begin) {
            let Some((content, after)) = from.split_once(&end) else { break };
            kept.push_str(before);
            if element(content, key).is_none_or(|key| Path::parse(plain(key)).is_ok()) {
                kept.extend([begin.as_str(), content, end.as_str()]);
            }
            rest = after;
        }
        kept + rest
    })
}

/// Text as it was before it became XML. What has numbered characters is no repository's, and not worth the work.
fn plain(text: &str) -> String {
    if text.contains("&#") {
        return "\0".to_owned();
    }
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_no_path_is_left_out() {
        let listing = |keys: &[&str], prefixes: &[&str]| {
            let contents = keys.iter().map(|key| format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>"));
            let prefixes =
                prefixes.iter().map(|key| format!("<CommonPrefixes><Prefix>{key}</Prefix></CommonPrefixes>"));
            let entries: String = contents.chain(prefixes).collect();
            format!(
                "<ListBucketResult><Name>b//c</Name><Prefix>zot/</Prefix>{entries}<IsTruncated>false</IsTruncated></ListBucketResult>"
            )
        };
        let good = listing(&["zot/a", "zot/a b", "zot/&amp;", "zot/m/"], &["zot/team/", "/", "zot/%2F/"]);
        assert_eq!(leave_out(&good), good);
        let odd = listing(
            &["zot/a", "zot//a", "zot/a b", "zot/&amp;", "zot/./x", "zot/m/", "zot/&#x1;"],
            &["zot/team/", "zot/a//", "/", "zot/../", "zot/%2F/"],
        );
        assert_eq!(leave_out(&odd), good);
        let azure = "<Blobs><BlobPrefix><Name>a//</Name></BlobPrefix><Blob><Name>b</Name><Properties/></Blob></Blobs>";
        assert_eq!(leave_out(azure), "<Blobs><Blob><Name>b</Name><Properties/></Blob></Blobs>");
        for broken in ["", "<Contents><Key>a//b", "{\"kind\": \"x\"}", "<Contents></Contents>"] {
            assert_eq!(leave_out(broken), broken);
        }
    }
}
