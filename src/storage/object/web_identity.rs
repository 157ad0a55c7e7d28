//! Credentials of S3 for a token that somebody else issued: `AssumeRoleWithWebIdentity`, as AWS SDK for Go v1 asks for it.
//!
//! zot's library asks the endpoint of the config if there is one (MinIO and others answer there), else AWS. Whatever
//! holds for requests to the bucket (certificates, proxies, retries, what is said of a refusal) holds here, too.

use super::http::{Trace, element};
use jiff::Timestamp;
use object_store::aws::AwsCredential;
use object_store::client::{HttpClient, HttpRequestBody};
use std::time::SystemTime;
use ureq::http::Request;

/// Who exchanges tokens for credentials.
#[derive(Debug)]
pub(super) struct WebIdentity {
    client: HttpClient,
    endpoint: String,
}

impl WebIdentity {
    pub(super) fn new(client: HttpClient, endpoint: String) -> Self {
        Self { client, endpoint }
    }

    /// Credentials for the token in a file, and when they end.
    pub(super) async fn assume(
        &self,
        file: &str,
        role: Option<&str>,
        session: Option<&str>,
    ) -> Result<(AwsCredential, Option<SystemTime>), String> {
        let role = role.ok_or("AWS_ROLE_ARN is not set")?;
        let token =
            std::fs::read_to_string(file).map_err(|error| format!("AWS_WEB_IDENTITY_TOKEN_FILE ({file}): {error}"))?;
        let session = session.map_or_else(|| Timestamp::now().as_nanosecond().to_string(), str::to_owned);
        let mut form = reqwest::Url::parse(&self.endpoint).map_err(|error| error.to_string())?;
        form.query_pairs_mut()
            .append_pair("Action", "AssumeRoleWithWebIdentity")
            .append_pair("Version", "2011-06-15")
            .append_pair("RoleArn", role)
            .append_pair("RoleSessionName", &session)
            .append_pair("WebIdentityToken", &token);
        let trace = Trace::default();
        let request = Request::post(format!("{}/", self.endpoint))
            .header("content-type", "application/x-www-form-urlencoded")
            .extension(trace.clone())
            .body(HttpRequestBody::from(form.query().unwrap_or_default().to_owned()))
            .map_err(|error| error.to_string())?;
        let answer = self.client.execute(request).await;
        if let Some(refusal) = trace.refusal() {
            return Err(format!("{}: {}", self.endpoint, refusal.text));
        }
        let body = answer.map_err(|error| crate::error::chain(&error))?.into_body().bytes().await;
        let body = body.map_err(|error| crate::error::chain(&error))?;
        let text = String::from_utf8_lossy(&body);
        let part = |name: &str| {
            let missing = || format!("{}: an answer without {name}", self.endpoint);
            element(&text, name).map(str::to_owned).ok_or_else(missing)
        };
        let credential = AwsCredential {
            key_id: part("AccessKeyId")?,
            secret_key: part("SecretAccessKey")?,
            token: Some(part("SessionToken")?),
        };
        let end = element(&text, "Expiration").and_then(|text| text.parse::<Timestamp>().ok()).map(SystemTime::from);
        Ok((credential, end))
    }
}
