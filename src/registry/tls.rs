//! TLS: whom we believe, and who we say we are.
//!
//! The HTTP library has TLS of its own, but it ends the process when a client's key does not belong
//! to its certificate, and cannot believe a server's certificate that is given as such: one that
//! `openssl req -x509` makes, its own authority, which is what private registries mostly have and
//! docker takes. So the connection is made here, of its parts and rustls.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme, StreamOwned,
};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
    TransportAdapter,
};

use super::RegistryError;
use crate::pathio;

/// Longer than the certificates of all authorities there are.
const MAX_PEM_BYTES: u64 = 4 << 20;

/// A certificate that we show to those who want to see one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientCertificate {
    /// PEM: the certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// PEM: its key, not encrypted.
    pub key: PathBuf,
}

/// Whom to believe, and who we are: equal profiles share connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Profile {
    /// Whether any certificate is good enough.
    pub(super) unverified: bool,
    /// PEM files with certificates to believe besides the system's.
    pub(super) ca: Vec<PathBuf>,
    pub(super) client: Option<ClientCertificate>,
}

/// The system's certificates, read when they are first needed.
#[derive(Debug, Default)]
pub(super) struct System(OnceLock<RootCertStore>);

impl System {
    fn roots(&self) -> RootCertStore {
        let load = || {
            let mut roots = RootCertStore::empty();
            // One that cannot be read is believed by nobody else either.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        };
        self.0.get_or_init(load).clone()
    }
}

/// What rustls needs to know.
///
/// # Errors
/// `Certificate` when a file holds nothing that can be used.
pub(super) fn config(
    profile: &Profile,
    system: &System,
) -> Result<Arc<ClientConfig>, RegistryError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = if profile.unverified {
        Arc::new(Unverified(Arc::clone(&provider)))
    } else {
        Arc::new(Verifier::new(&profile.ca, system.roots(), Arc::clone(&provider))?)
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows the usual versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some(ClientCertificate { certificate, key }) = &profile.client else {
        return Ok(Arc::new(builder.with_no_client_auth()));
    };
    let private = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|_unreadable| bad(key, "it holds no private key, or only an encrypted one"))?;
    let config =
        builder.with_client_auth_cert(certificates(certificate)?, private).map_err(|error| {
            bad(key, &format!("it does not go with {}: {error}", certificate.display()))
        })?;
    Ok(Arc::new(config))
}

fn bad(path: &Path, why: &str) -> RegistryError {
    RegistryError::Certificate { path: path.to_owned(), why: why.to_owned() }
}

fn read(path: &Path) -> Result<Vec<u8>, RegistryError> {
    pathio::inside::read_regular(path, MAX_PEM_BYTES).map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        bad(path, &source.unwrap_or_else(|| error.to_string()))
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, RegistryError> {
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(bad(path, "it holds no certificate in PEM")),
    }
}

/// Believes the authorities of the system and those that are given; and a certificate that is given
/// itself, for the names that it has and as long as it is good.
#[derive(Debug)]
struct Verifier {
    authorities: Arc<WebPkiServerVerifier>,
    given: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn new(
        ca: &[PathBuf],
        mut roots: RootCertStore,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, RegistryError> {
        let mut given = Vec::new();
        for path in ca {
            for certificate in certificates(path)? {
                roots
                    .add(certificate.clone())
                    .map_err(|error| bad(path, &format!("a certificate in it is bad: {error}")))?;
                given.push(certificate);
            }
        }
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let authorities = authorities.build().map_err(|_no_roots| {
            let path = Path::new("/etc/ssl/certs/ca-certificates.crt");
            bad(
                path,
                "the system has no certificates of authorities; install them, or give --ca FILE",
            )
        })?;
        Ok(Self { authorities, given })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.authorities.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // Of an authority's own certificate the library says just that it is no server's; it
            // has looked at the dates before.
            Err(Error::InvalidCertificate(
                CertificateError::Other(_) | CertificateError::UnknownIssuer,
            )) if self.given.iter().any(|given| given == end_entity) => {
                let parsed = ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&parsed, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// Believes everybody; signatures have to be right nevertheless.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Puts TLS on the connections that are to have it.
#[derive(Debug)]
pub(super) struct TlsConnector(pub(super) Arc<ClientConfig>);

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let host = details.uri.host().unwrap_or_default();
        let name =
            ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|_invalid| {
                ureq::Error::Tls("its name is not one that a certificate could have")
            })?;
        let config = Arc::clone(&self.0);
        let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let clock = Arc::clone(&details.current_time);
        let mut socket = TransportAdapter::new(transport.boxed(), clock);
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket)?;
        let stream = StreamOwned::new(connection, socket);
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(Either::B(TlsTransport { buffers, stream })))
    }
}

/// A connection with TLS.
pub(super) struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl std::fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsTransport")
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        self.stream.write_all(output)?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let n_read = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(n_read);
        Ok(n_read > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
