//! The one place where failures of DynamoDB become [`MetaDbError`]s, and where it is decided which pass by themselves.

use crate::metadb::MetaDbError;
use crate::secret;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use std::error::Error;
use std::time::Duration;

/// What is asked of the service.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// As in IAM policies, without `dynamodb:`.
    pub action: &'static str,
    /// Name of the table.
    pub table: &'a str,
    /// Capacity units that it will cost, roughly.
    pub units: f64,
    /// Whether these are write units.
    pub write: bool,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// More than the table or the account may use.
    Throttled,
    /// No answer, or the service is not well.
    Passing(String),
    /// The condition of a write does not hold.
    Condition,
    /// There is no such table.
    NoTable(String),
    /// Somebody else is creating the table, or has.
    TableInUse,
    /// Not allowed: action and table, and the service's words.
    Denied {
        /// `dynamodb:UpdateItem on table T`.
        what: String,
        /// What the service said.
        detail: String,
    },
    /// No credentials, or none that the service takes.
    Credentials(String),
    /// The service refuses an item for its size.
    TooLarge,
    /// The settings make a request impossible.
    Setting(String),
    /// What passes by itself did not, for as long as was waited.
    GaveUp(String),
    /// Any other answer.
    Other(String),
    /// Asked to stop.
    Cancelled,
}

impl Fault {
    /// Whether trying again can help.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Throttled | Self::Passing(_))
    }

    /// What became of a request.
    pub fn of<E>(error: &SdkError<E, HttpResponse>, request: Request<'_>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::TimeoutError(_) => Self::Passing("the service did not answer in time".into()),
            SdkError::ResponseError(_) => Self::Passing("the answer is not complete".into()),
            SdkError::ServiceError(failed) => {
                let (code, message) = (failed.err().code(), failed.err().message().unwrap_or_default());
                Self::service(code.unwrap_or_default(), message, failed.raw().status().as_u16(), request)
            }
            SdkError::DispatchFailure(failed) => Self::connection(error, failed.is_io() || failed.is_timeout()),
            other => Self::connection(other, false),
        }
    }

    /// No answer: credentials, addresses, connections.
    fn connection(error: &(dyn Error + 'static), passes: bool) -> Self {
        let mut last = error;
        let mut credentials = false;
        while let Some(cause) = last.source() {
            credentials |= cause.is::<aws_credential_types::provider::error::CredentialsError>();
            last = cause;
        }
        let cause = secret::redact_text(&last.to_string());
        if credentials {
            return Self::Credentials(cause);
        }
        // A certificate stays wrong however often it is looked at.
        if ["certificate", "InvalidContentType", "HandshakeFailure"].iter().any(|mark| cause.contains(mark)) {
            return Self::Setting(format!("TLS: {cause}"));
        }
        if passes { Self::Passing(cause) } else { Self::Setting(cause) }
    }

    /// What the service answered.
    fn service(code: &str, message: &str, status: u16, request: Request<'_>) -> Self {
        let message = secret::redact_text(message);
        match code {
            "ProvisionedThroughputExceededException"
            | "ThrottlingException"
            | "Throttling"
            | "RequestLimitExceeded"
            | "SlowDown" => Self::Throttled,
            "ConditionalCheckFailedException" => Self::Condition,
            "ResourceNotFoundException" => Self::NoTable(request.table.to_owned()),
            "ResourceInUseException" => Self::TableInUse,
            "AccessDeniedException" | "AccessDenied" => Self::Denied {
                what: format!("dynamodb:{} on table {}", request.action, request.table),
                detail: if message.is_empty() { "not allowed".to_owned() } else { message },
            },
            "ExpiredTokenException" | "ExpiredToken" | "TokenRefreshRequired" => {
                Self::Credentials("the credentials have expired".into())
            }
            "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch" => {
                Self::Credentials(format!("the service does not take the credentials, for this region: {message}"))
            }
            "ValidationException" if message.contains("Item size") => Self::TooLarge,
            "InternalServerError"
            | "InternalFailure"
            | "ServiceUnavailable"
            | "ServiceUnavailableException"
            | "TransactionConflictException"
            | "ReplicatedWriteConflictException"
            | "RequestTimeout" => Self::Passing(format!("{code} {message}")),
            _ if status >= 500 => Self::Passing(format!("status {status} {code} {message}").trim_end().to_owned()),
            "" => Self::Setting(format!("what answers is no DynamoDB (status {status})")),
            _ => Self::Other(format!("{} on table {}: {code} {message}", request.action, request.table)),
        }
    }

    /// After `tried` time of trying in vain.
    pub fn given_up(self, tried: Duration) -> Self {
        let detail = match self {
            Self::Throttled => "the service throttles every request".to_owned(),
            Self::Passing(detail) => detail,
            other => return other,
        };
        Self::GaveUp(format!("{detail} (tried for {} s)", tried.as_secs()))
    }

    /// The failure of a whole operation on the metaDB at `location`.
    pub fn into_error(self, action: &'static str, location: &str) -> MetaDbError {
        let location = location.to_owned();
        match self {
            Self::Passing(detail) | Self::GaveUp(detail) | Self::Setting(detail) => {
                MetaDbError::Unreachable { location, detail }
            }
            Self::NoTable(table) => MetaDbError::TablesMissing { location, tables: table },
            Self::Denied { what, detail } => MetaDbError::Denied { location, command: what, detail },
            Self::Credentials(detail) => MetaDbError::Credentials { location, detail },
            Self::Cancelled => MetaDbError::Cancelled,
            Self::TableInUse => MetaDbError::Io { action, location, source: "the table is being changed".into() },
            Self::Throttled => MetaDbError::Io { action, location, source: "it is throttled".into() },
            Self::Condition => MetaDbError::Io { action, location, source: "it changes all the time".into() },
            Self::TooLarge => {
                MetaDbError::Io { action, location, source: "an item exceeds the size limit of DynamoDB".into() }
            }
            Self::Other(detail) => MetaDbError::Io { action, location, source: detail.into() },
        }
    }
}
