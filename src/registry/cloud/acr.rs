//! Azure Container Registry: an identity's token of Microsoft Entra, exchanged at the registry for a refresh
//! token (<https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md>).

use std::time::Duration;

use serde_json::Value;

use super::exchange::{Exchange, Login, Question, text};
use crate::registry::credentials::Credential;

/// The metadata service of virtual machines.
const METADATA: &str = "http://169.254.169.254";
/// Address of Microsoft Entra.
const AUTHORITY: &str = "https://login.microsoftonline.com";
/// The resource that the token is for.
const RESOURCE: &str = "https://management.azure.com/";
/// Time after which the exchange is repeated. Refresh tokens of registries are valid for three hours.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Returns whether `host` is a registry of Azure.
pub(super) fn serves(host: &str) -> bool {
    [".azurecr.io", ".azurecr.cn", ".azurecr.us"].iter().any(|suffix| host.ends_with(suffix))
}

/// Exchanges the token of the identity of this process. `None` if it has no identity.
pub(super) fn login(exchange: &Exchange<'_>, host: &str) -> Result<Option<Login>, String> {
    let Some(token) = identity_token(exchange)? else { return Ok(None) };
    let mut fields =
        vec![("grant_type", "access_token"), ("service", host), ("access_token", token.as_str())];
    fields.extend(exchange.variable("AZURE_TENANT_ID").map(|tenant| ("tenant", tenant)));
    let question = Question::form(format!("https://{host}/oauth2/exchange"), &fields);
    let answer = exchange.json(&question, "the token exchange of the registry")?;
    let refresh = text(&answer, "refresh_token");
    let refresh = refresh.ok_or("the token exchange of the registry sent no token")?;
    let credential = Credential::Identity(refresh.to_owned());
    Ok(Some(Login { credential, lifetime: Some(LIFETIME) }))
}

/// Returns the access token of the first identity that is configured, in the order of Azure's SDKs.
fn identity_token(exchange: &Exchange<'_>) -> Result<Option<String>, String> {
    let client = exchange.variable("AZURE_CLIENT_ID");
    if let Some((tenant, client)) = exchange.variable("AZURE_TENANT_ID").zip(client) {
        if let Some(secret) = exchange.variable("AZURE_CLIENT_SECRET") {
            let proof = [("client_secret", secret.to_owned())];
            return of_authority(exchange, tenant, client, &proof).map(Some);
        }
        if let Some(file) = exchange.variable("AZURE_FEDERATED_TOKEN_FILE") {
            let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned();
            let proof =
                [("client_assertion_type", kind), ("client_assertion", exchange.read(file)?)];
            return of_authority(exchange, tenant, client, &proof).map(Some);
        }
    }
    let endpoint = exchange.variable("IDENTITY_ENDPOINT").zip(exchange.variable("IDENTITY_HEADER"));
    let (question, is_certain) = match endpoint {
        // App Service, Functions and Container Apps.
        Some((endpoint, header)) => {
            let url = with_client(
                format!("{endpoint}?api-version=2019-08-01&resource={RESOURCE}"),
                client,
            );
            (Question::get(url).header("x-identity-header", header), true)
        }
        None => {
            let base = exchange.variable("AZURE_POD_IDENTITY_AUTHORITY_HOST");
            let base = base.unwrap_or(METADATA).trim_end_matches('/');
            let path = "metadata/identity/oauth2/token?api-version=2018-02-01";
            let url = with_client(format!("{base}/{path}&resource={RESOURCE}"), client);
            (Question::get(url).header("metadata", "true"), client.is_some())
        }
    };
    let what = "the metadata service of Azure";
    match exchange.json(&question, what) {
        Ok(answer) => access_token(&answer, what).map(Some),
        // Only Azure has this service.
        Err(_absent) if !is_certain => Ok(None),
        Err(why) => Err(why),
    }
}

fn with_client(url: String, client: Option<&str>) -> String {
    match client {
        Some(client) => format!("{url}&{}", crate::registry::url::pair("client_id", client)),
        None => url,
    }
}

/// Requests a token of Microsoft Entra with the grant `client_credentials`
/// (<https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow>).
fn of_authority(
    exchange: &Exchange<'_>,
    tenant: &str,
    client: &str,
    proof: &[(&'static str, String)],
) -> Result<String, String> {
    let authority = exchange.variable("AZURE_AUTHORITY_HOST").unwrap_or(AUTHORITY);
    let url = format!("{}/{tenant}/oauth2/v2.0/token", authority.trim_end_matches('/'));
    let scope = format!("{RESOURCE}.default");
    let mut fields =
        vec![("grant_type", "client_credentials"), ("client_id", client), ("scope", &scope)];
    fields.extend(proof.iter().map(|(name, value)| (*name, value.as_str())));
    let what = "Microsoft Entra";
    access_token(&exchange.json(&Question::form(url, &fields), what)?, what)
}

fn access_token(answer: &Value, what: &str) -> Result<String, String> {
    let token = text(answer, "access_token").map(str::to_owned);
    token.ok_or_else(|| format!("the response of {what} has no token"))
}
