//! Certificates for tests, and a server that issues tokens signed with one.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests read the clock and panic on failure"
)]

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::registry::{Answer, Request, Scripted};

/// A certificate authority.
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

fn write(directory: &Path, name: &str, certificate: &str, key: &str) -> Certified {
    let path = |extension| directory.join(format!("{name}.{extension}"));
    std::fs::write(path("crt"), certificate).unwrap();
    std::fs::write(path("key"), key).unwrap();
    Certified { certificate: path("crt"), key: path("key") }
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::named("rbuild's tests")
    }

    /// Creates an authority with a name of its own: of two with one name, a client may take the wrong one.
    pub(crate) fn named(name: &str) -> Self {
        let mut params = params(&[]);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes its own certificate, as `<name>.crt`. Returns the path.
    pub(crate) fn write(&self, directory: &Path, name: &str) -> PathBuf {
        let path = directory.join(format!("{name}.crt"));
        std::fs::write(&path, self.0.pem()).unwrap();
        path
    }

    /// Issues a certificate for servers or clients of these names, as `<name>.crt` and
    /// `<name>.key`.
    pub(crate) fn certify(&self, directory: &Path, name: &str, names: &[&str]) -> Certified {
        let mut params = params(names);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        write(directory, name, &certificate.pem(), &key.serialize_pem())
    }
}

/// Creates what `openssl req -x509` creates: a certificate that is its own authority.
pub(crate) fn self_signed(directory: &Path, name: &str, names: &[&str]) -> Certified {
    let mut params = params(names);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    write(directory, name, &certificate.pem(), &key.serialize_pem())
}

/// A token server that Docker's registry trusts. It grants every request.
pub(crate) struct TokenServer {
    server: Scripted,
    certificate: String,
    realm: String,
}

/// Issuer and audience of the tokens.
pub(crate) const ISSUER: &str = "tests";
pub(crate) const SERVICE: &str = "registry.test";

/// Answer of a token server to a request for several scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenRule {
    /// A token for all of them.
    All,
    /// A token for the first.
    GrantsFirst,
    /// Status 403 for more than two: a mount needs two.
    RefusesMany,
}

impl TokenServer {
    pub(crate) fn new() -> Self {
        Self::behind(None, TokenRule::All)
    }

    /// Starts a server that grants no more than one scope at a time.
    pub(crate) fn with_rule(rule: TokenRule) -> Self {
        Self::behind(None, rule)
    }

    /// Starts a server that uses TLS with this certificate.
    pub(crate) fn with_tls(certified: &Certified) -> Self {
        Self::behind(Some(certified), TokenRule::All)
    }

    fn behind(tls: Option<&Certified>, rule: TokenRule) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params(&["tokens.test"]).self_signed(&key).unwrap();
        let chain = STANDARD.encode(certificate.der());
        let pkcs8 = key.serialize_der();
        let server = Scripted::new(move |request, n_before| {
            let signer = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8);
            let n_scopes = request.target.matches("scope=").count();
            if rule == TokenRule::RefusesMany && n_scopes > 2 {
                return Answer::new(403, "");
            }
            let n_granted = if rule == TokenRule::All { usize::MAX } else { 1 };
            let token = token(request, n_before, n_granted, &chain, &signer.unwrap());
            Answer::new(200, json!({ "token": token, "expires_in": 300 }).to_string())
        });
        let realm = match tls {
            None => format!("http://{}/token", server.host()),
            Some(certified) => format!("https://{}/token", front(certified, server.host())),
        };
        Self { server, certificate: certificate.pem(), realm }
    }

    /// Returns the address of the token server.
    pub(crate) fn realm(&self) -> &str {
        &self.realm
    }

    /// Returns the certificate that verifies its tokens.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Returns the number of tokens that it issued.
    pub(crate) fn n_tokens(&self) -> usize {
        self.server.requests().len()
    }
}

/// Returns a JSON Web Token that grants the first `n_granted` scopes of the request.
fn token(
    request: &Request,
    number: usize,
    n_granted: usize,
    chain: &str,
    signer: &EcdsaKeyPair,
) -> String {
    let query = request.target.split_once('?').map_or("", |(_, query)| query);
    let scopes = query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
    let access: Vec<Value> = scopes
        .take(n_granted)
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

/// Accepts requests without a body over TLS, and forwards them to `upstream`. Returns its address.
/// It ends with the process.
fn front(certified: &Certified, upstream: String) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = CertificateDer::pem_file_iter(&certified.certificate).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            chain.map(Result::unwrap).collect(),
            PrivateKeyDer::from_pem_file(&certified.key).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            // A client that does not trust the certificate disconnects.
            drop(pass_on(&mut stream, &upstream));
        }
    });
    address
}

fn pass_on(
    stream: &mut StreamOwned<ServerConnection, TcpStream>,
    upstream: &str,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let mut upstream = TcpStream::connect(upstream)?;
    upstream.write_all(&head)?;
    io::copy(&mut upstream, stream)?;
    stream.conn.send_close_notify();
    stream.flush()
}
