//! Keys for AWS, from the sources that its SDKs use, in their order
//! (<https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>).

use serde_json::Value;

use super::exchange::{Exchange, Question, tag, text};
use crate::registry::bucket::BucketKeys;

/// The metadata service of a virtual machine.
const METADATA: &str = "http://169.254.169.254";
/// The endpoint of credentials in a container of ECS.
const CONTAINER: &str = "http://169.254.170.2";
/// Hosts of container endpoints that may use plain http: ECS, EKS Pod Identity, and this machine.
const PLAIN_HOSTS: [&str; 5] =
    ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]", "127.0.0.1", "localhost"];
/// Name of the session of an assumed role, which appears in the logs of AWS.
const SESSION: &str = "rbuild";

/// Returns the keys of the first source that is configured. `None` if there is none.
pub(super) fn find(exchange: &Exchange<'_>) -> Result<Option<BucketKeys>, String> {
    if let Some(keys) = of_variables(exchange) {
        return Ok(Some(keys));
    }
    if let Some(keys) = of_web_identity(exchange)? {
        return Ok(Some(keys));
    }
    if let Some(keys) = of_shared_file(exchange) {
        return Ok(Some(keys));
    }
    if let Some(keys) = of_container(exchange)? {
        return Ok(Some(keys));
    }
    of_machine(exchange)
}

fn of_variables(exchange: &Exchange<'_>) -> Option<BucketKeys> {
    Some(BucketKeys {
        access_key_id: exchange.variable("AWS_ACCESS_KEY_ID")?.to_owned(),
        secret_access_key: exchange.variable("AWS_SECRET_ACCESS_KEY")?.to_owned(),
        session_token: exchange.variable("AWS_SESSION_TOKEN").map(str::to_owned),
    })
}

/// Assumes the role of a service account of Kubernetes (IRSA), or of a CI job with an identity token.
fn of_web_identity(exchange: &Exchange<'_>) -> Result<Option<BucketKeys>, String> {
    let file = exchange.variable("AWS_WEB_IDENTITY_TOKEN_FILE");
    let Some((file, role)) = file.zip(exchange.variable("AWS_ROLE_ARN")) else { return Ok(None) };
    let token = exchange.read(file)?;
    let own = exchange.first_variable(&["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"]);
    let region = exchange.first_variable(&["AWS_REGION", "AWS_DEFAULT_REGION"]);
    let url = match (own, region) {
        (Some(own), _) => own.to_owned(),
        (None, Some(region)) => format!("https://sts.{region}.{}/", suffix(region)),
        (None, None) => "https://sts.amazonaws.com/".to_owned(),
    };
    let session = exchange.variable("AWS_ROLE_SESSION_NAME").unwrap_or(SESSION);
    let question = Question::form(
        url,
        &[
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", role),
            ("RoleSessionName", session),
            ("WebIdentityToken", &token),
        ],
    );
    let answer = exchange.success(&question, "AWS STS")?.text();
    let member = |name: &str| tag(&answer, name).map(str::to_owned);
    let keys = || {
        Some(BucketKeys {
            access_key_id: member("AccessKeyId")?,
            secret_access_key: member("SecretAccessKey")?,
            session_token: Some(member("SessionToken")?),
        })
    };
    keys().map(Some).ok_or_else(|| "the response of AWS STS has no keys".to_owned())
}

/// Returns the domain of the services in a region.
pub(super) fn suffix(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

/// Reads the keys of a profile (<https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html>). A
/// profile that gets its keys in another way counts as missing.
fn of_shared_file(exchange: &Exchange<'_>) -> Option<BucketKeys> {
    let own = exchange.variable("AWS_SHARED_CREDENTIALS_FILE").map(str::to_owned);
    let path = own.or_else(|| Some(format!("{}/.aws/credentials", exchange.variable("HOME")?)))?;
    let file = exchange.read(&path).ok()?;
    let profile = exchange.first_variable(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]);
    profile_keys(&file, profile.unwrap_or("default"))
}

fn profile_keys(file: &str, profile: &str) -> Option<BucketKeys> {
    let mut is_inside = false;
    let (mut id, mut secret, mut token) = (None, None, None);
    for line in file.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let name = name.trim();
            is_inside = name == profile || name.strip_prefix("profile ") == Some(profile);
            continue;
        }
        let Some((name, value)) = line.split_once('=').filter(|_| is_inside) else { continue };
        let value = Some(value.trim().to_owned());
        match name.trim() {
            "aws_access_key_id" => id = value,
            "aws_secret_access_key" => secret = value,
            "aws_session_token" => token = value,
            _ => {}
        }
    }
    let (access_key_id, secret_access_key) = id.zip(secret)?;
    Some(BucketKeys { access_key_id, secret_access_key, session_token: token })
}

/// Asks the endpoint of ECS, of EKS Pod Identity, or of CodeBuild.
fn of_container(exchange: &Exchange<'_>) -> Result<Option<BucketKeys>, String> {
    let relative = exchange.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let full = exchange.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    let url = match (relative, full) {
        (Some(path), _) => format!("{CONTAINER}{path}"),
        (None, Some(url)) => checked_endpoint(url)?,
        (None, None) => return Ok(None),
    };
    let mut question = Question::get(url);
    let file = exchange.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    if let Some(file) = file {
        question = question.header("authorization", exchange.read(file)?);
    } else if let Some(token) = exchange.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN") {
        question = question.header("authorization", token);
    }
    let what = "the endpoint of AWS container credentials";
    json_keys(&exchange.json(&question, what)?, what).map(Some)
}

/// Checks that a token is not sent over plain http to another host than AWS documents.
fn checked_endpoint(url: &str) -> Result<String, String> {
    let plain = url.strip_prefix("http://");
    let authority = plain.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let host = authority.map(|authority| match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    });
    if host.is_some_and(|host| !PLAIN_HOSTS.contains(&host)) {
        return Err(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI must be https, or an address of this machine"
                .to_owned(),
        );
    }
    Ok(url.to_owned())
}

/// Asks the metadata service of a virtual machine, version 2
/// (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>). `None`
/// where there is none.
fn of_machine(exchange: &Exchange<'_>) -> Result<Option<BucketKeys>, String> {
    let is_off = exchange.variable("AWS_EC2_METADATA_DISABLED");
    if is_off.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let base = exchange.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or(METADATA);
    let base = base.trim_end_matches('/');
    let ask = Question::put(format!("{base}/latest/api/token"))
        .header("x-aws-ec2-metadata-token-ttl-seconds", "300");
    let Ok(token) = exchange.success(&ask, "") else { return Ok(None) };
    let what = "the metadata service of AWS";
    let get = |path: &str| {
        Question::get(format!("{base}/latest/meta-data/iam/security-credentials/{path}"))
            .header("x-aws-ec2-metadata-token", token.text())
    };
    let roles = (exchange.ask)(&get(""))?;
    if roles.status == 404 {
        // The machine has no role.
        return Ok(None);
    }
    let roles = roles.text();
    let role = roles.lines().next().unwrap_or_default().trim();
    if role.is_empty() || !role.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/') {
        return Ok(None);
    }
    json_keys(&exchange.json(&get(role), what)?, what).map(Some)
}

fn json_keys(document: &Value, what: &str) -> Result<BucketKeys, String> {
    let member = |name: &str| text(document, name).map(str::to_owned);
    let keys = || {
        Some(BucketKeys {
            access_key_id: member("AccessKeyId")?,
            secret_access_key: member("SecretAccessKey")?,
            session_token: member("Token"),
        })
    };
    keys().ok_or_else(|| format!("the response of {what} has no keys"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_read() {
        let file = "[default]\naws_access_key_id = A\naws_secret_access_key=B\n\n\
                    [ci]\n# comment\naws_access_key_id=C\naws_secret_access_key = D=\n\
                    aws_session_token= E\n[half]\naws_access_key_id = F\n";
        let of = |profile| {
            profile_keys(file, profile).map(|keys| {
                [Some(keys.access_key_id), Some(keys.secret_access_key), keys.session_token]
            })
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(of("default"), Some([some("A"), some("B"), None]));
        assert_eq!(of("ci"), Some([some("C"), some("D="), some("E")]));
        assert_eq!((of("half"), of("other")), (None, None));
    }

    #[test]
    fn container_endpoints_are_secure_or_local() {
        for (url, is_accepted) in [
            ("http://169.254.170.23/v1/credentials", true),
            ("http://[fd00:ec2::23]/v1", true),
            ("http://127.0.0.1:8080/x", true),
            ("https://keys.example/x", true),
            ("http://keys.example/x", false),
            ("http://169.254.170.2.example/", false),
        ] {
            assert_eq!(checked_endpoint(url).is_ok(), is_accepted, "{url}");
        }
    }
}
