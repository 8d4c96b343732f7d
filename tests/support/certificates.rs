//! Certificates of the tests' own, and a server that gives out tokens signed with one.
#![expect(dead_code, reason = "the tests of TLS are still to come")]
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test may read the clock, and ends by a panic"
)]

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use serde_json::{Value, json};

use super::registry::{Answer, Request, Scripted};

/// Somebody who signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM files.
#[derive(Debug, Clone)]
pub(crate) struct Certified {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, "rbuild's tests");
    params
}

fn write(folder: &Path, name: &str, certificate: &str, key: &str) -> Certified {
    let path = |extension| folder.join(format!("{name}.{extension}"));
    std::fs::write(path("crt"), certificate).unwrap();
    std::fs::write(path("key"), key).unwrap();
    Certified { certificate: path("crt"), key: path("key") }
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = params(&[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate, as `<name>.crt`.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(format!("{name}.crt"));
        std::fs::write(&path, self.0.pem()).unwrap();
        path
    }

    /// A certificate for servers or clients of these names, as `<name>.crt` and `<name>.key`.
    pub(crate) fn certify(&self, folder: &Path, name: &str, names: &[&str]) -> Certified {
        let mut params = params(names);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        write(folder, name, &certificate.pem(), &key.serialize_pem())
    }
}

/// What `openssl req -x509` makes: a certificate that is its own authority.
pub(crate) fn self_signed(folder: &Path, name: &str, names: &[&str]) -> Certified {
    let mut params = params(names);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    write(folder, name, &certificate.pem(), &key.serialize_pem())
}

/// A token server as docker's registry believes it: whoever asks gets what he asks for.
pub(crate) struct TokenServer {
    server: Scripted,
    certificate: String,
}

/// Who gives the tokens, and whom they are for.
pub(crate) const ISSUER: &str = "tests";
pub(crate) const SERVICE: &str = "registry.test";

impl TokenServer {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params(&["tokens.test"]).self_signed(&key).unwrap();
        let chain = STANDARD.encode(certificate.der());
        let pkcs8 = key.serialize_der();
        let server = Scripted::new(move |request, n_before| {
            let signer = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8);
            let token = token(request, n_before, &chain, &signer.unwrap());
            Answer::new(200, json!({ "token": token, "expires_in": 300 }).to_string())
        });
        Self { server, certificate: certificate.pem() }
    }

    /// Where it is.
    pub(crate) fn realm(&self) -> String {
        format!("http://{}/token", self.server.host())
    }

    /// By what its tokens are recognised.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// How many tokens it gave.
    pub(crate) fn n_tokens(&self) -> usize {
        self.server.requests().len()
    }
}

/// A JSON Web Token that allows what the request's `scope`s ask for.
fn token(request: &Request, number: usize, chain: &str, signer: &EcdsaKeyPair) -> String {
    let query = request.target.split_once('?').map_or("", |(_, query)| query);
    let scopes = query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
    let access: Vec<Value> = scopes
        .map(|scope| {
            let mut words = scope.split(':');
            let (kind, name) = (words.next().unwrap(), words.next().unwrap());
            let actions: Vec<&str> = words.next().unwrap().split(',').collect();
            json!({ "type": kind, "name": name, "actions": actions })
        })
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [chain] });
    let claims = json!({
        "iss": ISSUER, "sub": "", "aud": SERVICE, "exp": now + 300, "nbf": now - 10, "iat": now,
        "jti": number.to_string(), "access": access,
    });
    let encoded = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let signed = encoded.join(".");
    let signature = signer.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
