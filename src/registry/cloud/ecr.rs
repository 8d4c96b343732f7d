//! Amazon ECR: `GetAuthorizationToken` of the registry's region
//! (<https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html>).

use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use super::aws_keys;
use super::exchange::{Exchange, Login, Question, text};
use super::signature::{SigningScope, sign};
use crate::registry::url::Url;

/// The registry of public images.
const PUBLIC: &str = "public.ecr.aws";
/// Lifetime of a token, as AWS documents it.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// A registry of ECR.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Registry<'a> {
    Private { account: &'a str, region: &'a str, api: String },
    Public,
}

/// Returns whether `host` is a registry of ECR.
pub(super) fn serves(host: &str) -> bool {
    registry(host).is_some()
}

/// Parses `ACCOUNT.dkr.ecr[-fips].REGION.amazonaws.com[.cn]`, and `ACCOUNT.dkr-ecr.REGION.on.aws`.
fn registry(host: &str) -> Option<Registry<'_>> {
    if host == PUBLIC {
        return Some(Registry::Public);
    }
    let (account, rest) = host.split_once('.')?;
    let is_word = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let (kind, rest) = ["dkr.ecr-fips.", "dkr.ecr.", "dkr-ecr-fips.", "dkr-ecr."]
        .iter()
        .find_map(|kind| Some((*kind, rest.strip_prefix(kind)?)))?;
    let (region, domain) = rest.split_once('.')?;
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    if !is_account || !is_word(region) {
        return None;
    }
    let is_fips = kind.contains("fips");
    let api = match (kind.starts_with("dkr."), domain) {
        (true, "amazonaws.com") if is_fips => format!("ecr-fips.{region}.{domain}"),
        (true, "amazonaws.com" | "amazonaws.com.cn") => format!("api.ecr.{region}.{domain}"),
        (false, "on.aws") if is_fips => format!("ecr-fips.{region}.api.aws"),
        (false, "on.aws") => format!("ecr.{region}.api.aws"),
        _ => return None,
    };
    Some(Registry::Private { account, region, api: format!("https://{api}/") })
}

/// Exchanges the keys of AWS for a login. `None` if there are no keys.
pub(super) fn login(exchange: &Exchange<'_>, host: &str) -> Result<Option<Login>, String> {
    let Some(registry) = registry(host) else { return Ok(None) };
    let Some(keys) = aws_keys::find(exchange)? else { return Ok(None) };
    let (names, own, target, region, body) = match &registry {
        Registry::Private { account, region, api } => (
            ["AWS_ENDPOINT_URL_ECR", "AWS_ENDPOINT_URL"],
            api.as_str(),
            "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
            *region,
            json!({ "registryIds": [account] }),
        ),
        Registry::Public => (
            ["AWS_ENDPOINT_URL_ECR_PUBLIC", "AWS_ENDPOINT_URL"],
            "https://api.ecr-public.us-east-1.amazonaws.com/",
            "SpencerFrontendService.GetAuthorizationToken",
            "us-east-1",
            json!({}),
        ),
    };
    let service = if registry == Registry::Public { "ecr-public" } else { "ecr" };
    let url = exchange.first_variable(&names).unwrap_or(own);
    let parsed = Url::parse(url).ok_or_else(|| format!("{} is not an address", names[0]))?;
    let question = Question::post(url, body.to_string().into_bytes())
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", target);
    let scope = SigningScope { service, region };
    let question = sign(question, parsed.host(), scope, &keys, exchange.now_s);
    let answer = exchange.json(&question, "Amazon ECR")?;
    token(&answer).map(Some).ok_or_else(|| "the response of Amazon ECR has no token".to_owned())
}

/// Reads the token: Base64 of `AWS:password`.
fn token(answer: &Value) -> Option<Login> {
    let data = answer.get("authorizationData")?;
    let data = data.get(0).unwrap_or(data);
    let packed = text(data, "authorizationToken")?;
    let token = base64::engine::general_purpose::STANDARD.decode(packed).ok()?;
    let token = String::from_utf8(token).ok()?;
    let (user, password) = token.split_once(':')?;
    Some(Login::of_user(user, password, Some(LIFETIME)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lead_to_the_api_of_their_region() {
        for (host, want) in [
            (
                "123456789012.dkr.ecr.eu-central-1.amazonaws.com",
                Some("https://api.ecr.eu-central-1.amazonaws.com/"),
            ),
            (
                "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
                Some("https://api.ecr.cn-north-1.amazonaws.com.cn/"),
            ),
            (
                "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
                Some("https://ecr-fips.us-gov-west-1.amazonaws.com/"),
            ),
            ("123456789012.dkr-ecr.us-east-1.on.aws", Some("https://ecr.us-east-1.api.aws/")),
            ("12345678901.dkr.ecr.eu-central-1.amazonaws.com", None),
            ("123456789012.dkr.ecr.eu-central-1.amazonaws.com.evil.example", None),
            ("123456789012.dkr.ecr.eu/x.amazonaws.com", None),
            ("evil.example", None),
        ] {
            let api = registry(host).and_then(|registry| match registry {
                Registry::Private { api, .. } => Some(api),
                Registry::Public => None,
            });
            assert_eq!(api.as_deref(), want, "{host}");
        }
        assert_eq!(registry("public.ecr.aws"), Some(Registry::Public));
    }
}
