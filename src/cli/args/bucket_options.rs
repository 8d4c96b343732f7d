//! `type=s3` of `--cache-from` and `--cache-to`, with the attributes of BuildKit
//! (<https://docs.docker.com/build/cache/backends/s3/>).

use std::num::NonZeroUsize;

use crate::executor::BucketCache;
use crate::registry::{Bucket, BucketKeys, BucketOptions, RegistryError};

/// Reads an environment variable.
pub(crate) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Age in seconds after which a blob that is used again is rewritten.
const TOUCH_AFTER_S: i64 = 24 * 3600;
/// Number of parallel uploads.
const UPLOADS: NonZeroUsize = NonZeroUsize::new(4).unwrap();
/// Maximum number of parallel uploads. More would only wait.
const MAX_UPLOADS: usize = 64;

/// The attributes of `type=s3`.
pub(crate) const NAMES: [&str; 13] = [
    "region",
    "bucket",
    "prefix",
    "blobs_prefix",
    "manifests_prefix",
    "name",
    "endpoint_url",
    "use_path_style",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "touch_refresh",
    "upload_parallelism",
];

/// Parses fields (name, value), all of them of [`NAMES`].
pub(crate) fn cache(
    fields: &[(String, String)],
    variables: Variables<'_>,
) -> Result<BucketCache, String> {
    let given = |name: &str| {
        let found = fields.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
    };
    let variable = |names: &[&str]| names.iter().find_map(|name| variables(name));
    let name = given("bucket").or_else(|| variable(&["AWS_BUCKET"]));
    let name = name.ok_or("type=s3 needs bucket=NAME (or AWS_BUCKET)")?;
    let endpoint =
        given("endpoint_url").or_else(|| variable(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]));
    let region = given("region").or_else(|| variable(&["AWS_REGION", "AWS_DEFAULT_REGION"]));
    // Most servers other than AWS ignore the region.
    let region = region.or_else(|| endpoint.is_some().then(|| "us-east-1".to_owned()));
    let region = region.ok_or("type=s3 needs region=REGION (or AWS_REGION)")?;
    let path_style = match given("use_path_style") {
        Some(value) => crate::cli::outputs::output::boolean("use_path_style", &value)?,
        None => false,
    };
    let bucket =
        BucketOptions { name, region, endpoint, path_style, keys: keys(&given, variables)? };
    if let Err(error) = Bucket::new(&bucket) {
        let RegistryError::BadOption { option, why } = error else { return Err(error.to_string()) };
        return Err(format!("{option}: {why}"));
    }
    let prefix = given("prefix").unwrap_or_default();
    let directory = |name: &str, usual: &str| {
        let own = given(name).unwrap_or_else(|| usual.to_owned());
        good_key(name, format!("{prefix}{own}"))
    };
    let names = given("name").unwrap_or_else(|| "latest".to_owned());
    let names: Vec<String> =
        names.split(';').map(|name| good_key("name", name.to_owned())).collect::<Result<_, _>>()?;
    Ok(BucketCache {
        bucket,
        blobs: directory("blobs_prefix", "blobs/")?,
        manifests: directory("manifests_prefix", "manifests/")?,
        names,
        touch_after_s: given("touch_refresh").map_or(Ok(TOUCH_AFTER_S), |text| seconds(&text))?,
        uploads: given("upload_parallelism").map_or(Ok(UPLOADS), |text| uploads(&text))?,
    })
}

fn keys(
    given: &dyn Fn(&str) -> Option<String>,
    variables: Variables<'_>,
) -> Result<BucketKeys, String> {
    // Keys from two sources would not belong together.
    if let Some(access_key_id) = given("access_key_id") {
        let secret = given("secret_access_key");
        let secret_access_key = secret.ok_or("access_key_id needs secret_access_key=KEY")?;
        let session_token = given("session_token");
        return Ok(BucketKeys { access_key_id, secret_access_key, session_token });
    }
    if given("secret_access_key").is_some() || given("session_token").is_some() {
        return Err("secret_access_key and session_token need access_key_id=ID".to_owned());
    }
    let (id, secret) = (variables("AWS_ACCESS_KEY_ID"), variables("AWS_SECRET_ACCESS_KEY"));
    let (Some(access_key_id), Some(secret_access_key)) = (id, secret) else {
        let others = ["AWS_PROFILE", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"];
        let hint = match others.iter().find(|name| variables(name).is_some()) {
            Some(name) => format!(
                "; {name} alone is not enough: `eval \"$(aws configure export-credentials --format env)\"` sets them"
            ),
            None => String::new(),
        };
        return Err(format!(
            "type=s3 needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment{hint}"
        ));
    };
    let session_token = variables("AWS_SESSION_TOKEN");
    Ok(BucketKeys { access_key_id, secret_access_key, session_token })
}

/// Parses the address `s3://BUCKET/KEY` of a context, with the variables of the SDKs of AWS and those of
/// kaniko. Without keys in the environment, `find_keys` gets them.
pub(crate) fn object(
    address: &str,
    variables: Variables<'_>,
    find_keys: &dyn Fn() -> Result<Option<BucketKeys>, String>,
) -> Result<(BucketOptions, String), String> {
    let (name, key) = address.split_once('/').unwrap_or((address, ""));
    let key = good_key("the context", key.to_owned())?;
    let variable = |names: &[&str]| names.iter().find_map(|name| variables(name));
    let endpoint = variable(&["S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]);
    let region = variable(&["AWS_REGION", "AWS_DEFAULT_REGION"]);
    let region = region.or_else(|| endpoint.is_some().then(|| "us-east-1".to_owned()));
    let region = region.ok_or("set AWS_REGION to the region of the bucket")?;
    let path_style = variables("S3_FORCE_PATH_STYLE").is_some_and(|text| text == "true");
    let keys = match keys(&|_field| None, variables) {
        Ok(keys) => keys,
        Err(why) => find_keys()?.ok_or(why)?,
    };
    Ok((BucketOptions { name: name.to_owned(), region, endpoint, path_style, keys }, key))
}

/// Checks a key. URLs normalize `..` and the like, which would address another object
/// (RFC 3986, section 5.2.4).
fn good_key(name: &str, key: String) -> Result<String, String> {
    let bad = |part: &str| matches!(part, "." | "..");
    let bytes = key.bytes().any(|byte| byte.is_ascii_control());
    if key.is_empty()
        || bytes
        || key.starts_with('/')
        || key.contains("//")
        || key.split('/').any(bad)
    {
        let shown = key.escape_debug();
        return Err(format!("{name}: {shown} is not valid in the key of an object"));
    }
    Ok(key)
}

/// Parses a time as Go does, such as `24h` or `1h30m`, or a number of seconds.
fn seconds(text: &str) -> Result<i64, String> {
    let bad = || format!("touch_refresh={text} is not a time such as 24h");
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(seconds.into());
    }
    let duration = humantime::parse_duration(text).map_err(|_bad| bad())?;
    i64::try_from(duration.as_secs()).map_err(|_long| bad())
}

fn uploads(text: &str) -> Result<NonZeroUsize, String> {
    let number = text.parse::<NonZeroUsize>().ok().filter(|number| number.get() <= MAX_UPLOADS);
    number
        .ok_or_else(|| format!("upload_parallelism={text} is not a number from 1 to {MAX_UPLOADS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, variables: &[(&str, &str)]) -> Result<BucketCache, String> {
        let pairs = text.split(',').filter_map(|field| field.split_once('='));
        let fields: Vec<(String, String)> =
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        cache(&fields, &|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const KEYS: [(&str, &str); 2] =
        [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")];

    #[test]
    fn buckets_are_parsed_from_fields_and_environment() {
        let cache = read("region=r,bucket=b", &KEYS).unwrap();
        assert_eq!(cache.to_string(), "s3://b/manifests/latest");
        assert_eq!((cache.blobs.as_str(), cache.touch_after_s), ("blobs/", 86_400));
        let text = "bucket=b,prefix=p/,name=a;b,endpoint_url=http://127.0.0.1:1,use_path_style=true,\
                    access_key_id=i,secret_access_key=s,session_token=t,touch_refresh=1h30m,\
                    blobs_prefix=x/,manifests_prefix=m/,upload_parallelism=9";
        let cache = read(text, &KEYS).unwrap();
        assert_eq!(cache.to_string(), "s3://b/p/m/a;b");
        assert_eq!((cache.blobs.as_str(), cache.touch_after_s), ("p/x/", 5400));
        assert_eq!((cache.uploads.get(), cache.bucket.region.as_str()), (9, "us-east-1"));
        let own = BucketKeys {
            access_key_id: "i".to_owned(),
            secret_access_key: "s".to_owned(),
            session_token: Some("t".to_owned()),
        };
        assert_eq!(cache.bucket.keys, own);
        let more = [
            ("AWS_BUCKET", "b"),
            ("AWS_DEFAULT_REGION", "r"),
            ("AWS_ENDPOINT_URL", "http://h"),
            ("AWS_SESSION_TOKEN", "t"),
        ];
        let cache = read("", &[KEYS.as_slice(), &more].concat()).unwrap();
        assert_eq!(cache.bucket.endpoint.as_deref(), Some("http://h"));
        assert_eq!(cache.bucket.keys.session_token.as_deref(), Some("t"));
    }

    #[test]
    fn invalid_buckets_are_refused_with_a_hint() {
        let role = [("AWS_ROLE_ARN", "arn")];
        for (text, variables, want) in [
            ("region=r", &KEYS[..], "type=s3 needs bucket=NAME (or AWS_BUCKET)"),
            ("bucket=b", &KEYS, "type=s3 needs region=REGION (or AWS_REGION)"),
            (
                "region=r,bucket=b",
                &KEYS[..1],
                "type=s3 needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment",
            ),
            (
                "region=r,bucket=b",
                &role,
                "type=s3 needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment; \
             AWS_ROLE_ARN alone is not enough: `eval \"$(aws configure export-credentials --format env)\"` sets them",
            ),
            (
                "region=r,bucket=b,access_key_id=x",
                &KEYS,
                "access_key_id needs secret_access_key=KEY",
            ),
            (
                "region=r,bucket=b,session_token=x",
                &KEYS,
                "secret_access_key and session_token need access_key_id=ID",
            ),
            (
                "region=r,bucket=b,prefix=../",
                &KEYS,
                "blobs_prefix: ../blobs/ is not valid in the key of an object",
            ),
            ("region=r,bucket=b,name=a;", &KEYS, "name:  is not valid in the key of an object"),
            (
                "region=r,bucket=b,touch_refresh=soon",
                &KEYS,
                "touch_refresh=soon is not a time such as 24h",
            ),
            (
                "region=r,bucket=b,upload_parallelism=0",
                &KEYS,
                "upload_parallelism=0 is not a number from 1 to 64",
            ),
            (
                "bucket=b,endpoint_url=h",
                &KEYS,
                "endpoint_url: it must be an address such as https://s3.example",
            ),
        ] {
            assert_eq!(read(text, variables), Err(want.to_owned()), "{text}");
        }
    }
}
