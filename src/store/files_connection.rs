//! Where files are: a folder, S3 and its likes, Google's and Azure's stores, or a web server.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::StoreError;
use crate::error::{Code, Error, Result};

/// A request that failed is sent again so often.
const RETRIES: usize = 2;

/// Where files are and how to get at them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesConfig {
    pub location: FilesLocation,
    /// What all paths begin with, without a slash at either end; may be empty.
    pub prefix: String,
    /// One request to a server, its answer included.
    pub request_timeout: Duration,
    /// Whether a server may be asked without TLS.
    pub allow_http: bool,
}

/// A place for files.
#[derive(Clone, PartialEq, Eq)]
pub enum FilesLocation {
    Folder(PathBuf),
    S3(S3Options),
    Gcs {
        bucket: String,
        service_account: Option<PathBuf>,
        anonymous: bool,
    },
    Azure {
        container: String,
        account: String,
        access_key: Option<String>,
        endpoint: Option<String>,
        anonymous: bool,
    },
    /// Scheme, host and port.
    Web(String),
}

/// A bucket of S3 or its likes.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Options {
    pub bucket: String,
    pub region: Option<String>,
    pub endpoint: Option<String>,
    pub path_style: bool,
    /// Key and secret; without them those of the machine, unless it is asked without any.
    pub credentials: Option<(String, String)>,
    pub session_token: Option<String>,
    pub anonymous: bool,
}

impl fmt::Display for FilesLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FilesLocation::Folder(folder) => write!(f, "{}", folder.display()),
            FilesLocation::S3(options) => write!(f, "s3://{}", options.bucket),
            FilesLocation::Gcs { bucket, .. } => write!(f, "gs://{bucket}"),
            FilesLocation::Azure { container, account, .. } => write!(f, "az://{container} of {account}"),
            FilesLocation::Web(origin) => f.write_str(origin),
        }
    }
}

/// Without credentials.
impl fmt::Debug for FilesLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FilesLocation({self})")
    }
}

/// A place that need not have been reached.
pub struct FilesConnection {
    config: FilesConfig,
    /// Made when it is first needed: a folder may come to be later.
    store: Mutex<Option<Arc<dyn ObjectStore>>>,
}

impl FilesConnection {
    pub fn new(config: FilesConfig) -> Arc<Self> {
        Arc::new(FilesConnection { config, store: Mutex::default() })
    }

    pub(super) fn store(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = store.as_ref() {
            return Ok(Arc::clone(store));
        }
        let opened = open(&self.config).map_err(|error| failure_of(&error))?;
        Ok(Arc::clone(store.insert(opened)))
    }

    /// The path of what stands at `relative` below the url.
    pub(super) fn path(&self, relative: &str) -> Result<Path> {
        let whole = match (self.config.prefix.as_str(), relative) {
            ("", relative) => relative.to_string(),
            (prefix, "") => prefix.to_string(),
            (prefix, relative) => format!("{prefix}/{relative}"),
        };
        let wrong =
            |error| Error::new(Code::InvalidParameterValue, format!("\"{relative}\" is not a path of files: {error}"));
        Path::parse(whole).map_err(wrong)
    }

    /// A path as it stands below the url; `None` for one that does not.
    pub(super) fn relative(&self, path: &Path) -> Option<String> {
        let path = path.as_ref();
        match self.config.prefix.as_str() {
            "" => Some(path.to_string()),
            prefix => path.strip_prefix(prefix)?.strip_prefix('/').map(str::to_string),
        }
    }
}

fn open(config: &FilesConfig) -> object_store::Result<Arc<dyn ObjectStore>> {
    let client = ClientOptions::new().with_timeout(config.request_timeout).with_allow_http(config.allow_http);
    let retry = RetryConfig { max_retries: RETRIES, ..RetryConfig::default() };
    Ok(match &config.location {
        FilesLocation::Folder(folder) => Arc::new(LocalFileSystem::new_with_prefix(folder)?),
        FilesLocation::S3(options) => {
            let mut builder = AmazonS3Builder::new()
                .with_bucket_name(&options.bucket)
                .with_virtual_hosted_style_request(!options.path_style)
                .with_allow_http(config.allow_http)
                .with_skip_signature(options.anonymous);
            if let Some(region) = &options.region {
                builder = builder.with_region(region);
            }
            if let Some(endpoint) = &options.endpoint {
                builder = builder.with_endpoint(endpoint);
            }
            if let Some((key, secret)) = &options.credentials {
                builder = builder.with_access_key_id(key).with_secret_access_key(secret);
            }
            if let Some(token) = &options.session_token {
                builder = builder.with_token(token);
            }
            Arc::new(builder.with_client_options(client).with_retry(retry).build()?)
        }
        FilesLocation::Gcs { bucket, service_account, anonymous } => {
            let mut builder = GoogleCloudStorageBuilder::new().with_bucket_name(bucket).with_skip_signature(*anonymous);
            if let Some(path) = service_account {
                builder = builder.with_service_account_path(path.to_string_lossy());
            }
            Arc::new(builder.with_client_options(client).with_retry(retry).build()?)
        }
        FilesLocation::Azure { container, account, access_key, endpoint, anonymous } => {
            let mut builder = MicrosoftAzureBuilder::new()
                .with_container_name(container)
                .with_account(account)
                .with_allow_http(config.allow_http)
                .with_skip_signature(*anonymous);
            if let Some(key) = access_key {
                builder = builder.with_access_key(key);
            }
            if let Some(endpoint) = endpoint {
                builder = builder.with_endpoint(endpoint.clone());
            }
            Arc::new(builder.with_client_options(client).with_retry(retry).build()?)
        }
        FilesLocation::Web(origin) => {
            Arc::new(HttpBuilder::new().with_url(origin).with_client_options(client).with_retry(retry).build()?)
        }
    })
}

/// What a store of files says, as one of ours. A file that is gone or another one than was listed has changed meanwhile.
pub(super) fn failure_of(error: &object_store::Error) -> StoreError {
    let failed = |message: String| StoreError::Failed { message, sqlstate: None };
    match error {
        object_store::Error::NotFound { path, .. } => {
            StoreError::Unavailable { message: format!("file \"{path}\" is not there") }
        }
        object_store::Error::Precondition { path, .. } => {
            StoreError::Unavailable { message: format!("file \"{path}\" changed while it was read") }
        }
        object_store::Error::PermissionDenied { path, .. } | object_store::Error::Unauthenticated { path, .. } => {
            failed(format!("the store of files refuses \"{path}\": permission denied"))
        }
        object_store::Error::InvalidPath { source } => failed(source.to_string()),
        other => StoreError::Unavailable { message: innermost(other) },
    }
}

/// The innermost cause: what is around it repeats it with the url, in which there may be a secret.
fn innermost(error: &object_store::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    format!("the store of files cannot be read: {cause}")
}

impl fmt::Display for FilesConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.config.prefix.as_str() {
            "" => write!(f, "{}", self.config.location),
            prefix => write!(f, "{}/{prefix}", self.config.location),
        }
    }
}

impl fmt::Debug for FilesConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilesConnection").field("config", &self.config).finish_non_exhaustive()
    }
}
