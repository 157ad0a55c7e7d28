//! Parameters of the S3 driver: AWS SDK for Go v1 semantics (spec §1.10).

use super::credentials::DefaultChain;
use super::keys::Keys;
use super::params::{ParamError, Params, address, refused, unsupported};
use super::web_identity::WebIdentity;
use crate::secret::Secret;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredential};
use object_store::client::HttpConnector as _;
use object_store::{ClientOptions, RetryConfig, StaticCredentialProvider};
use std::sync::Arc;

/// Regions that the SDK knows; without `regionendpoint` zot starts with no other.
#[rustfmt::skip]
const REGIONS: [&str; 37] = [
    "af-south-1", "ap-east-1", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-south-2",
    "ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4", "ca-central-1", "ca-west-1",
    "cn-north-1", "cn-northwest-1", "eu-central-1", "eu-central-2", "eu-isoe-west-1", "eu-north-1", "eu-south-1",
    "eu-south-2", "eu-west-1", "eu-west-2", "eu-west-3", "il-central-1", "me-central-1", "me-south-1", "sa-east-1",
    "us-east-1", "us-east-2", "us-gov-east-1", "us-gov-west-1", "us-iso-east-1", "us-iso-west-1", "us-isob-east-1",
    "us-west-1", "us-west-2",
];

const STORAGE_CLASSES: [&str; 9] = [
    "NONE",
    "STANDARD",
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "OUTPOSTS",
    "GLACIER_IR",
    "EXPRESS_ONEZONE",
];

const OBJECT_ACLS: [&str; 7] = [
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
];

const MIB: i64 = 1 << 20;

/// A bucket and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct S3 {
    bucket: String,
    /// What requests are signed for.
    region: String,
    /// Scheme, host and path before the bucket, which is part of the host's name or comes next.
    endpoint: String,
    virtual_hosted: bool,
    /// Scheme, host and path of who exchanges tokens for credentials.
    sts: String,
    /// Access key and secret key; `None` for the default chain.
    keys: Option<(Secret, Secret)>,
    skip_verify: bool,
    user_agent: String,
}

impl S3 {
    pub(super) fn from_params(params: Params<'_>) -> Result<(Self, Keys), ParamError> {
        check_writing(params)?;
        let region_endpoint = params.print("regionendpoint")?;
        let bucket = params.required("bucket")?;
        let access_point = AccessPoint::parse(&bucket)?;
        // A colon parts a tenant's name from the bucket's where a server has tenants.
        if access_point.is_none() && !bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte))
        {
            return Err(refused("bucket", "is no name of a bucket"));
        }
        let secure = params.boolean("secure", true)?;
        let (dual_stack, fips) = (params.boolean("usedualstack", false)?, params.boolean("usefipsendpoint", false)?);
        // Another way to the same bucket, faster for uploads from afar; the usual way leads there, too.
        let accelerate = params.boolean("accelerate", false)?;
        if !params.boolean("v4auth", true)? {
            if region_endpoint.is_empty() || region_endpoint.contains("s3.amazonaws.com") {
                return Err(refused("v4auth", "must not be false on Amazon S3"));
            }
            return Err(unsupported("v4auth", "false asks for signatures of version 2"));
        }
        let region = region(params, &region_endpoint)?;
        let scheme = if secure { "https" } else { "http" };
        let own_endpoint = !region_endpoint.is_empty();
        let endpoint = match region_endpoint.split_once("://") {
            Some((before, _)) if !before.is_empty() && !before.contains(':') => region_endpoint,
            _ if !region_endpoint.is_empty() => format!("{scheme}://{region_endpoint}"),
            _ => format!("{scheme}://{}", aws_host("s3", &region, dual_stack, fips)),
        };
        // Anything else fails in zot at the first request.
        let mut endpoint = address(&endpoint).ok_or_else(|| refused("regionendpoint", "must be an HTTP address"))?;
        // zot's library asks one endpoint for everything.
        let sts = match own_endpoint {
            true => endpoint.clone(),
            false => format!("https://{}", aws_host("sts", &region, false, fips)),
        };
        let forced = params.boolean("forcepathstyle", false)?;
        let mut virtual_hosted = !forced && fits_into_host(&bucket, endpoint.starts_with("https://"));
        if let Some(point) = access_point {
            if own_endpoint {
                return Err(unsupported("bucket", "is an access point, which only works here without regionendpoint"));
            }
            point.check(&region, accelerate)?;
            let host = aws_host("s3-accesspoint", &region, dual_stack, fips);
            endpoint = format!("{scheme}://{}-{}.{host}", point.name, point.account);
            virtual_hosted = true;
        } else if let Some((scheme, host)) = endpoint.split_once("://").filter(|_| virtual_hosted) {
            endpoint = address(&format!("{scheme}://{bucket}.{host}")).ok_or_else(|| {
                let reason = "must be true: otherwise the bucket's name goes before the host's, which here is a number";
                refused("forcepathstyle", reason)
            })?;
        }
        let (access, secret) = (params.print("accesskey")?, params.print("secretkey")?);
        let keys = (!access.is_empty() && !secret.is_empty()).then(|| (Secret::new(access), Secret::new(secret)));
        let root = params.get("rootdirectory").map(|_| params.print("rootdirectory")).transpose()?;
        let keys_of_store = Keys::doubled(root.as_deref())?;
        let skip_verify = params.boolean("skipverify", false)?;
        let user_agent = params.print("useragent")?;
        Ok((Self { bucket, region, endpoint, virtual_hosted, sts, keys, skip_verify, user_agent }, keys_of_store))
    }

    pub(super) fn location(&self, root: &str) -> String {
        format!("s3://{}/{root}", self.bucket)
    }

    /// What must not appear in any message.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        self.keys.iter().flat_map(|(access, secret)| [access.clone(), secret.clone()]).collect()
    }

    pub(super) fn options(&self) -> Result<ClientOptions, String> {
        let mut options = super::client_options(&self.endpoint, self.skip_verify, &self.user_agent)?;
        if !self.skip_verify
            && let Some(path) = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty())
        {
            let problem = |detail: String| format!("AWS_CA_BUNDLE ({}): {detail}", path.display());
            let pem = std::fs::read(&path).map_err(|error| problem(error.to_string()))?;
            let certificates =
                object_store::Certificate::from_pem_bundle(&pem).map_err(|_| problem("no certificates".into()))?;
            options = certificates.into_iter().fold(options, ClientOptions::with_root_certificate);
        }
        Ok(options)
    }

    pub(super) fn open(
        &self,
        connector: super::http::Connector,
        options: ClientOptions,
        retry: RetryConfig,
    ) -> object_store::Result<AmazonS3> {
        let builder = AmazonS3Builder::new()
            .with_http_connector(connector.clone())
            .with_client_options(options.clone())
            .with_retry(retry)
            .with_bucket_name(&self.bucket)
            .with_region(&self.region)
            .with_endpoint(&self.endpoint)
            .with_virtual_hosted_style_request(self.virtual_hosted);
        match &self.keys {
            Some((access, secret)) => {
                let (key_id, secret_key) = (access.expose().to_owned(), secret.expose().to_owned());
                let credential = AwsCredential { key_id, secret_key, token: None };
                builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential))).build()
            }
            None => {
                let web_identity = WebIdentity::new(connector.connect(&options)?, self.sts.clone());
                builder.with_credentials(Arc::new(DefaultChain::new(&self.region, web_identity))).build()
            }
        }
    }
}

/// What stands for a bucket and has an address of its own.
struct AccessPoint<'a> {
    region: &'a str,
    account: &'a str,
    name: &'a str,
}

impl<'a> AccessPoint<'a> {
    /// `arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME`; `None` for what is no ARN.
    fn parse(bucket: &'a str) -> Result<Option<Self>, ParamError> {
        let Some(arn) = bucket.strip_prefix("arn:") else { return Ok(None) };
        let parts: Vec<&str> = arn.split([':', '/']).collect();
        let label = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        match parts[..] {
            [_, "s3", region, account, "accesspoint", name] if [region, account, name].into_iter().all(label) => {
                Ok(Some(Self { region, account, name }))
            }
            [_, "s3", ..] => Err(refused("bucket", "is no access point: arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME")),
            _ => Err(unsupported("bucket", "is neither a bucket nor an access point of S3 itself")),
        }
    }

    /// What the SDK refuses at the first request; another region unless `AWS_S3_USE_ARN_REGION` says otherwise.
    fn check(&self, region: &str, accelerate: bool) -> Result<(), ParamError> {
        if self.region != region {
            return Err(unsupported("bucket", format!("is an access point in another region than {region}")));
        }
        match accelerate {
            true => Err(refused("accelerate", "must not be true for an access point")),
            false => Ok(()),
        }
    }
}

/// Parameters that only matter when zot writes, but that keep it from starting.
fn check_writing(params: Params<'_>) -> Result<(), ParamError> {
    const MOST: i64 = 5 * 1024 * MIB;
    params.boolean("encrypt", false)?;
    params.check_integer("chunksize", 5 * MIB..=MOST)?;
    params.check_integer("multipartcopychunksize", 5 * MIB..=MOST)?;
    params.check_integer("multipartcopymaxconcurrency", 1..=i64::MAX)?;
    params.check_integer("multipartcopythresholdsize", 0..=MOST)?;
    let one_of = |name: &str, fits: &dyn Fn(&str) -> bool, known: &[&str]| match params.get(name) {
        None => Ok(()),
        Some(value) if value.as_text().is_some_and(fits) => Ok(()),
        Some(_) => Err(refused(name, format!("must be one of {}", known.join(", ")))),
    };
    one_of("storageclass", &|text| STORAGE_CLASSES.contains(&text.to_uppercase().as_str()), &STORAGE_CLASSES)?;
    one_of("objectacl", &|text| OBJECT_ACLS.contains(&text), &OBJECT_ACLS)
}

fn region(params: Params<'_>, region_endpoint: &str) -> Result<String, ParamError> {
    let region = params.print("region")?;
    if region_endpoint.is_empty() {
        if region.is_empty() {
            return Err(refused("region", "is missing"));
        }
        if !REGIONS.contains(&region.as_str()) {
            return Err(refused("region", "is none that zot's AWS library knows"));
        }
        return Ok(region);
    }
    if !region.is_empty() {
        return Ok(region);
    }
    if params.get("region").is_some() {
        // Given but empty: the SDK looks into the environment, and sends nothing if there is none either.
        return std::env::var("AWS_REGION").ok().filter(|region| !region.is_empty()).ok_or_else(|| {
            refused("region", "is empty, and so is AWS_REGION: leave it out, or name one that the endpoint accepts")
        });
    }
    // zot signs for a region called `<nil>`, which only servers accept that do not look at it.
    Ok("us-east-1".into())
}

fn aws_host(service: &str, region: &str, dual_stack: bool, fips: bool) -> String {
    let suffix = match region {
        _ if region.starts_with("cn-") => "amazonaws.com.cn",
        _ if region.starts_with("us-isob-") => "sc2s.sgov.gov",
        _ if region.starts_with("us-iso-") => "c2s.ic.gov",
        _ if region.starts_with("eu-isoe-") => "cloud.adc-e.uk",
        _ => "amazonaws.com",
    };
    let fips = if fips { "-fips" } else { "" };
    let stack = if dual_stack { ".dualstack" } else { "" };
    format!("{service}{fips}{stack}.{region}.{suffix}")
}

/// Whether the SDK puts the bucket into the host's name: a DNS name, and no dots where a certificate must match.
fn fits_into_host(bucket: &str, secure: bool) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let dotted_quad = bucket.split('.').count() == 4
        && bucket.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    !(secure && bucket.contains('.'))
        && (3..=63).contains(&bucket.len())
        && bucket.bytes().all(|byte| alphanumeric(&byte) || matches!(byte, b'.' | b'-'))
        && bucket.as_bytes().first().is_some_and(alphanumeric)
        && bucket.as_bytes().last().is_some_and(alphanumeric)
        && !dotted_quad
        && !bucket.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DriverParams;
    use crate::config::tree::{Map, Tree};

    fn read(params: &[(&str, &str)]) -> Result<(S3, Keys), ParamError> {
        let defaults = [("bucket", "b4t"), ("region", "eu-west-1")];
        let given = |name: &str| params.iter().any(|(other, _)| *other == name);
        let map: Map = defaults
            .iter()
            .filter(|(name, _)| !given(name))
            .chain(params)
            .map(|(name, value)| {
                let value = match *value {
                    "<null>" => Tree::Null,
                    "<true>" => Tree::Bool(true),
                    "<false>" => Tree::Bool(false),
                    "<list>" => Tree::List(Vec::new()),
                    text => text.parse().map_or_else(|_| Tree::Text(text.into()), Tree::Int),
                };
                ((*name).to_owned(), value)
            })
            .collect();
        S3::from_params(Params(&DriverParams::new(map)))
    }

    #[test]
    fn endpoints() {
        let endpoint = |params: &[(&str, &str)]| {
            let (s3, _) = read(params).unwrap();
            (s3.endpoint, s3.virtual_hosted, s3.region)
        };
        for (params, want, hosted) in [
            (&[][..], "https://b4t.s3.eu-west-1.amazonaws.com", true),
            (&[("secure", "false")], "http://b4t.s3.eu-west-1.amazonaws.com", true),
            (&[("usedualstack", "true")], "https://b4t.s3.dualstack.eu-west-1.amazonaws.com", true),
            (&[("usefipsendpoint", "<true>")], "https://b4t.s3-fips.eu-west-1.amazonaws.com", true),
            (
                &[("usefipsendpoint", "true"), ("usedualstack", "T")],
                "https://b4t.s3-fips.dualstack.eu-west-1.amazonaws.com",
                true,
            ),
            (&[("region", "cn-north-1")], "https://b4t.s3.cn-north-1.amazonaws.com.cn", true),
            (&[("region", "us-isob-east-1")], "https://b4t.s3.us-isob-east-1.sc2s.sgov.gov", true),
            (&[("forcepathstyle", "<true>")], "https://s3.eu-west-1.amazonaws.com", false),
            (&[("bucket", "my.bucket")], "https://s3.eu-west-1.amazonaws.com", false),
            (&[("bucket", "my.bucket"), ("secure", "<false>")], "http://my.bucket.s3.eu-west-1.amazonaws.com", true),
            (
                &[("bucket", "arn:aws:s3:eu-west-1:123456789012:accesspoint/team-a")],
                "https://team-a-123456789012.s3-accesspoint.eu-west-1.amazonaws.com",
                true,
            ),
            (
                &[
                    ("bucket", "arn:aws-cn:s3:cn-north-1:123456789012:accesspoint:p"),
                    ("region", "cn-north-1"),
                    ("usedualstack", "true"),
                    ("usefipsendpoint", "true"),
                    ("forcepathstyle", "true"),
                ],
                "https://p-123456789012.s3-accesspoint-fips.dualstack.cn-north-1.amazonaws.com.cn",
                true,
            ),
            (&[("bucket", "Upper")], "https://s3.eu-west-1.amazonaws.com", false),
            (&[("regionendpoint", "minio:9000")], "https://b4t.minio:9000", true),
            (&[("regionendpoint", "minio:9000"), ("secure", "<false>")], "http://b4t.minio:9000", true),
            // `secure` does not touch an endpoint that has a scheme.
            (&[("regionendpoint", "http://MinIO:9000/"), ("forcepathstyle", "true")], "http://minio:9000", false),
            (
                &[("regionendpoint", "https://10.0.0.1/s3/"), ("secure", "<false>"), ("forcepathstyle", "true")],
                "https://10.0.0.1/s3",
                false,
            ),
        ] {
            let found = endpoint(params);
            assert_eq!((found.0.as_str(), found.1), (want, hosted), "{params:?}");
        }
        // Tokens are exchanged where zot's library asks for everything.
        let sts = |params: &[(&str, &str)]| read(params).unwrap().0.sts;
        assert_eq!(sts(&[("usedualstack", "true")]), "https://sts.eu-west-1.amazonaws.com");
        assert_eq!(sts(&[("regionendpoint", "")]), "https://sts.eu-west-1.amazonaws.com");
        assert_eq!(sts(&[("regionendpoint", "minio:9000"), ("secure", "<false>")]), "http://minio:9000");
        assert_eq!(endpoint(&[("regionendpoint", "h"), ("region", "<null>")]).2, "us-east-1");
        assert_eq!(endpoint(&[("regionendpoint", "h"), ("region", "here")]).2, "here");
    }

    #[test]
    fn static_keys_need_both_halves() {
        assert!(read(&[("accesskey", "A"), ("secretkey", "S")]).unwrap().0.keys.is_some());
        for half in [&[("accesskey", "A")][..], &[("secretkey", "S")], &[("accesskey", "A"), ("secretkey", "")], &[]] {
            assert!(read(half).unwrap().0.keys.is_none());
        }
        let (s3, _) = read(&[("accesskey", "AKIA0"), ("secretkey", "hunter22")]).unwrap();
        assert!(!format!("{s3:?}").contains("hunter22") && !format!("{s3:?}").contains("AKIA0"));
        assert_eq!(s3.secrets().len(), 2);
    }

    #[test]
    fn what_keeps_zot_from_starting() {
        for params in [
            &[("region", "<null>")][..],
            &[("region", "")],
            &[("region", "mars-1")],
            &[("bucket", "<null>")],
            &[("bucket", "")],
            &[("bucket", "<list>")],
            &[("secure", "maybe")],
            &[("secure", "1 ")],
            &[("skipverify", "5")],
            &[("encrypt", "on")],
            &[("accelerate", "<list>")],
            &[("forcepathstyle", "")],
            &[("v4auth", "<false>")],
            &[("v4auth", "false"), ("regionendpoint", "https://s3.amazonaws.com")],
            &[("chunksize", "100")],
            &[("multipartcopymaxconcurrency", "0")],
            &[("storageclass", "warm")],
            &[("objectacl", "PRIVATE")],
            &[("objectacl", "5")],
            &[("rootdirectory", "")],
            &[("rootdirectory", "zot")],
            &[("rootdirectory", "/zot/")],
            &[("regionendpoint", "ftp://h")],
            &[("regionendpoint", "http://")],
            &[("regionendpoint", "a b")],
            &[("regionendpoint", "127.0.0.1:9000")],
            &[("bucket", "a b")],
            &[("bucket", "a/b")],
            &[("bucket", "arn:aws:s3:eu-west-1:1:bucket/x")],
            &[("bucket", "arn:aws:s3::1:accesspoint/x.mrap")],
            &[("bucket", "arn:aws:s3:eu-west-1:1:accesspoint/x"), ("accelerate", "true")],
        ] {
            assert!(matches!(read(params), Err(ParamError::Refused(_))), "{params:?}: {:?}", read(params));
        }
        for params in [
            &[("v4auth", "<false>"), ("regionendpoint", "h")][..],
            &[("bucket", "arn:aws:s3:eu-west-1:1:accesspoint/x"), ("region", "eu-west-2")],
            &[("bucket", "arn:aws:s3:eu-west-1:1:accesspoint/x"), ("regionendpoint", "h")],
            &[("bucket", "arn:aws:s3-outposts:eu-west-1:1:outpost/o/accesspoint/x")],
            &[("rootdirectory", "/a/../b")],
        ] {
            assert!(matches!(read(params), Err(ParamError::Unsupported(_))), "{params:?}");
        }
    }

    #[test]
    fn what_does_not() {
        for params in [
            &[("storageclass", "standard_ia")][..],
            &[("objectacl", "public-read")],
            &[("chunksize", "10485760")],
            &[("loglevel", "<list>"), ("useragent", "x"), ("keyid", "5"), ("multipartcopythresholdsize", "0")],
            &[("nonsense", "x")],
            &[("rootdirectory", "<null>")],
            &[("bucket", "123")],
        ] {
            assert!(read(params).is_ok(), "{params:?}");
        }
        assert_eq!(read(&[("rootdirectory", "/zot")]).unwrap().1.root(), "zot/zot");
        assert_eq!(read(&[]).unwrap().1.root(), "");
    }
}
