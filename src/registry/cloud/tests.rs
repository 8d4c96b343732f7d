//! Exchanges with scripted endpoints.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::exchange::{Answer, Exchange, Question};
use super::{CloudLogin, find};
use crate::registry::credentials::Credential;

/// An endpoint: the start of a request line with a part of its headers or body, and the response.
type Step = (&'static str, &'static str, u16, &'static str);

const ECR_HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
/// `AWS:token` in Base64.
const ECR_ANSWER: &str =
    r#"{"authorizationData":[{"authorizationToken":"QVdTOnRva2Vu","expiresAt":1.7e9}]}"#;
const KEYS: &str = r#"{"AccessKeyId":"ID","SecretAccessKey":"SECRET","Token":"SESSION"}"#;

/// Looks up a login for `host`, and expects the requests of `script` in their order.
fn login(
    host: &str,
    variables: &[(&str, &str)],
    files: &[(&str, &str)],
    script: &[Step],
) -> Result<Option<String>, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let variables: BTreeMap<String, String> = variables.iter().map(owned).collect();
    let rest = RefCell::new(script.iter());
    let ask = |question: &Question| {
        let verb = if question.posts { "POST" } else { "GET" };
        let verb = if question.puts { "PUT" } else { verb };
        let line = format!("{verb} {}", question.url);
        let Some((want, part, status, body)) = rest.borrow_mut().next() else {
            return Err(format!("no answer to {line}"));
        };
        assert_eq!(line, **want);
        let headers: String =
            question.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        let text = format!("{headers}{}", String::from_utf8_lossy(&question.body));
        assert!(text.contains(part), "{part} is not in {text}");
        Ok(Answer { status: *status, body: body.as_bytes().to_vec() })
    };
    let read = |path: &std::path::Path| {
        let found = files.iter().find(|(name, _)| path.to_str() == Some(name));
        found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| format!("no {}", path.display()))
    };
    let exchange = Exchange { variables: &variables, now_s: 1_440_938_160, read: &read, ask: &ask };
    let found = find(&CloudLogin::ALL, &exchange, host)?;
    assert_eq!(rest.borrow().len(), 0, "requests are missing");
    Ok(found.map(|login| match login.credential {
        Credential::Password { user, password } => format!("{user}:{password}"),
        Credential::Identity(token) => format!("identity {token}"),
        Credential::Registry(token) => format!("registry {token}"),
    }))
}

fn some(text: &str) -> Result<Option<String>, String> {
    Ok(Some(text.to_owned()))
}

#[test]
fn ecr_is_asked_with_the_first_keys_that_exist() {
    const API: &str = "POST https://api.ecr.eu-west-1.amazonaws.com/";
    let ask = |part| (API, part, 200, ECR_ANSWER);
    let keys = [("AWS_ACCESS_KEY_ID", "VAR"), ("AWS_SECRET_ACCESS_KEY", "S")];
    assert_eq!(
        login(ECR_HOST, &keys, &[], &[ask("Credential=VAR/20150830/eu-west-1/ecr/")]),
        some("AWS:token")
    );
    let file = "[default]\naws_access_key_id=FILE\naws_secret_access_key=S\n";
    let home = [("HOME", "/h")];
    let files = [("/h/.aws/credentials", file)];
    assert_eq!(login(ECR_HOST, &home, &files, &[ask("Credential=FILE/")]), some("AWS:token"));
    let web = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
        ("AWS_REGION", "eu-west-1"),
    ];
    let sts = (
        "POST https://sts.eu-west-1.amazonaws.com/",
        "RoleArn=arn:aws:iam::1:role/r&RoleSessionName=rbuild&WebIdentityToken=jwt",
        200,
        "<R><Credentials><AccessKeyId>WEB</AccessKeyId><SecretAccessKey>S</SecretAccessKey>\
         <SessionToken>T</SessionToken></Credentials></R>",
    );
    let files = [("/token", "jwt\n")];
    let script = [sts, ask("x-amz-security-token: T")];
    assert_eq!(login(ECR_HOST, &web, &files, &script), some("AWS:token"));
    let container = [
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "auth"),
    ];
    let script = [
        ("GET http://169.254.170.2/v2/x", "authorization: auth", 200, KEYS),
        ask("Credential=ID/"),
    ];
    assert_eq!(login(ECR_HOST, &container, &[], &script), some("AWS:token"));
    const BASE: &str = "GET http://169.254.169.254/latest/meta-data/iam/security-credentials/";
    let role = "GET http://169.254.169.254/latest/meta-data/iam/security-credentials/role";
    let script = [
        ("PUT http://169.254.169.254/latest/api/token", "ttl-seconds: 300", 200, "V2"),
        (BASE, "x-aws-ec2-metadata-token: V2", 200, "role"),
        (role, "x-aws-ec2-metadata-token: V2", 200, KEYS),
        ask("x-amz-security-token: SESSION"),
    ];
    assert_eq!(login(ECR_HOST, &[], &[], &script), some("AWS:token"));
}

#[test]
fn endpoints_of_aws_are_overridden_by_variables() {
    let variables = [
        ("AWS_ACCESS_KEY_ID", "A"),
        ("AWS_SECRET_ACCESS_KEY", "S"),
        ("AWS_ENDPOINT_URL_ECR", "http://127.0.0.1:1/"),
    ];
    let script = [("POST http://127.0.0.1:1/", "GetAuthorizationToken", 200, ECR_ANSWER)];
    assert_eq!(login(ECR_HOST, &variables, &[], &script), some("AWS:token"));
    let variables = [
        ("AWS_ACCESS_KEY_ID", "A"),
        ("AWS_SECRET_ACCESS_KEY", "S"),
        ("AWS_ENDPOINT_URL", "http://h/"),
    ];
    let answer = r#"{"authorizationData":{"authorizationToken":"QVdTOnRva2Vu"}}"#;
    let script = [("POST http://h/", "SpencerFrontendService.GetAuthorizationToken", 200, answer)];
    assert_eq!(login("public.ecr.aws", &variables, &[], &script), some("AWS:token"));
}

#[test]
fn refusals_give_the_reason_without_secrets() {
    let variables = [("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "geheim")];
    let answer = r#"{"__type":"X","message":"The security token is invalid"}"#;
    let script = [("POST https://api.ecr.eu-west-1.amazonaws.com/", "", 400, answer)];
    let want = "Amazon ECR answered 400: The security token is invalid";
    assert_eq!(login(ECR_HOST, &variables, &[], &script), Err(want.to_owned()));
    let script = [("POST https://api.ecr.eu-west-1.amazonaws.com/", "", 200, "geheim")];
    let want = "the response of Amazon ECR is not JSON";
    assert_eq!(login(ECR_HOST, &variables, &[], &script), Err(want.to_owned()));
}

#[test]
fn google_uses_the_key_of_a_service_account_or_the_metadata_server() {
    let key = r#"{"type":"service_account","private_key":"k"}"#;
    let variables = [("GOOGLE_APPLICATION_CREDENTIALS", "/key.json")];
    let want = some(&format!("_json_key:{key}"));
    assert_eq!(login("eu.gcr.io", &variables, &[("/key.json", key)], &[]), want);
    let variables = [("GCE_METADATA_HOST", "127.0.0.1:9")];
    let url = "GET http://127.0.0.1:9/computeMetadata/v1/instance/service-accounts/default/token";
    let answer = r#"{"access_token":"at","expires_in":3599,"token_type":"Bearer"}"#;
    let script = [(url, "metadata-flavor: Google", 200, answer)];
    let host = "europe-docker.pkg.dev";
    assert_eq!(login(host, &variables, &[], &script), some("oauth2accesstoken:at"));
    let product = "/sys/class/dmi/id/product_name";
    assert_eq!(login("gcr.io", &[], &[(product, "Laptop")], &[]), Ok(None));
    let url = "GET http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token";
    let script = [(url, "", 404, "")];
    let failed = login("gcr.io", &[], &[(product, "Google Compute Engine\n")], &script);
    assert_eq!(failed, Err("the metadata server of Google answered 404".to_owned()));
}

#[test]
fn azure_exchanges_the_token_of_its_identity_at_the_registry() {
    let host = "app.azurecr.io";
    let exchange = (
        "POST https://app.azurecr.io/oauth2/exchange",
        "grant_type=access_token&service=app.azurecr.io&access_token=aad",
        200,
        r#"{"refresh_token":"refresh"}"#,
    );
    let token = r#"{"access_token":"aad"}"#;
    let url = "GET http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01\
               &resource=https://management.azure.com/";
    let script = [(url, "metadata: true", 200, token), exchange];
    assert_eq!(login(host, &[], &[], &script), some("identity refresh"));
    let workload = [
        ("AZURE_CLIENT_ID", "c"),
        ("AZURE_TENANT_ID", "t"),
        ("AZURE_FEDERATED_TOKEN_FILE", "/token"),
        ("AZURE_AUTHORITY_HOST", "http://127.0.0.1:1/"),
    ];
    let script = [
        ("POST http://127.0.0.1:1/t/oauth2/v2.0/token", "client_assertion=jwt", 200, token),
        (exchange.0, "service=app.azurecr.io&access_token=aad&tenant=t", 200, exchange.3),
    ];
    assert_eq!(login(host, &workload, &[("/token", "jwt")], &script), some("identity refresh"));
    assert_eq!(login(host, &[], &[], &[]), Ok(None));
}

#[test]
fn variables_are_for_their_own_registries() {
    let gitlab = [
        ("CI_REGISTRY", "reg.gitlab.example"),
        ("CI_JOB_TOKEN", "job"),
        ("CI_DEPENDENCY_PROXY_SERVER", "gitlab.example:443"),
        ("CI_DEPENDENCY_PROXY_USER", "u"),
        ("CI_DEPENDENCY_PROXY_PASSWORD", "p"),
    ];
    assert_eq!(login("reg.gitlab.example", &gitlab, &[], &[]), some("gitlab-ci-token:job"));
    assert_eq!(login("gitlab.example", &gitlab, &[], &[]), some("u:p"));
    assert_eq!(login("other.example", &gitlab, &[], &[]), Ok(None));
    let user =
        [&gitlab[..], &[("CI_REGISTRY_USER", "me"), ("CI_REGISTRY_PASSWORD", "pw")]].concat();
    assert_eq!(login("reg.gitlab.example", &user, &[], &[]), some("me:pw"));
    let own = [("KANIKO_MY_EXAMPLE_USER", "u"), ("KANIKO_MY_EXAMPLE_PASSWORD", "p")];
    assert_eq!(login("a.b.my-example", &own, &[], &[]), some("u:p"));
    assert_eq!(login("my-example.a", &own, &[], &[]), Ok(None));
    assert_eq!(login("reg.my.example", &own, &[], &[]), some("u:p"));
    assert_eq!(login("my-example", &own, &[], &[]), some("u:p"));
}
