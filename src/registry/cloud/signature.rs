//! Signatures of requests to AWS in headers, Signature Version 4
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>).

use aws_lc_rs::{digest, hmac};

use super::exchange::Question;
use crate::registry::bucket::BucketKeys;

/// The service and region that a signature is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct SigningScope<'a> {
    pub(super) service: &'a str,
    pub(super) region: &'a str,
}

/// Adds the headers of a signature to a POST to the root of a service. Its other headers are signed, too.
pub(super) fn sign(
    mut question: Question,
    host: &str,
    scope: SigningScope<'_>,
    keys: &BucketKeys,
    now_s: i64,
) -> Question {
    let time = basic_time(now_s);
    let day = time.split('T').next().unwrap_or_default().to_owned();
    question = question.header("x-amz-date", time.clone());
    if let Some(token) = &keys.session_token {
        question = question.header("x-amz-security-token", token.clone());
    }
    let mut headers: Vec<(&str, &str)> =
        question.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    headers.push(("host", host));
    headers.sort_unstable();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String =
        headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let request = format!("POST\n/\n\n{lines}\n{names}\n{}", hex_digest(&question.body));
    let SigningScope { service, region } = scope;
    let place = format!("{day}/{region}/{service}/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{place}\n{}", hex_digest(request.as_bytes()));
    let secret = format!("AWS4{}", keys.secret_access_key);
    let key = [&day, region, service, "aws4_request"]
        .iter()
        .fold(secret.into_bytes(), |key, part| mac(&key, part.as_bytes()));
    let signature = hex(&mac(&key, text.as_bytes()));
    let id = &keys.access_key_id;
    question.header(
        "authorization",
        format!(
            "AWS4-HMAC-SHA256 Credential={id}/{place}, SignedHeaders={names}, Signature={signature}"
        ),
    )
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref().to_vec()
}

fn hex_digest(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Formats seconds since 1970 in the basic format of ISO 8601.
fn basic_time(now_s: i64) -> String {
    let seconds = u64::try_from(now_s).unwrap_or(0);
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(time).to_string().replace(['-', ':'], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_is_that_of_the_test_suite_of_aws() {
        // `post-vanilla` of aws-sig-v4-test-suite.
        let keys = BucketKeys {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
        };
        let scope = SigningScope { service: "service", region: "us-east-1" };
        let question = Question::post("https://example.amazonaws.com/", Vec::new());
        let signed = sign(question, "example.amazonaws.com", scope, &keys, 1_440_938_160);
        let header = |name: &str| {
            signed.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
        };
        assert_eq!(header("x-amz-date"), Some("20150830T123600Z"));
        assert_eq!(
            header("authorization"),
            Some(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                 SignedHeaders=host;x-amz-date, \
                 Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
            )
        );
    }
}
