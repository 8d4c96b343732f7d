//! TLS: trusted certificates and client certificates.
//!
//! The HTTP library's own TLS ends the process if a client's key does not match its certificate.
//! Nor can it trust a server certificate itself, as `openssl req -x509` makes it (openssl-req(1)):
//! self-signed and its own authority. Most private registries have such a certificate, and docker
//! accepts it. So connections are made here from parts of the library and rustls.

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

/// Maximum size of a PEM file in bytes. Larger than the bundle of all public authorities.
const MAX_PEM_BYTES: u64 = 4 << 20;

/// A client certificate, for servers that request one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientCertificate {
    /// PEM file: the certificate and its intermediates.
    pub certificate: PathBuf,
    /// PEM file: the unencrypted private key.
    pub key: PathBuf,
}

/// Trust settings and client certificate. Equal profiles share connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TlsProfile {
    /// True if certificates are not verified.
    pub(super) unverified: bool,
    /// PEM files with additional trusted CA certificates.
    pub(super) ca: Vec<PathBuf>,
    pub(super) client: Option<ClientCertificate>,
}

/// The system's trusted roots, loaded on first use.
#[derive(Debug, Default)]
pub(super) struct SystemRoots(OnceLock<RootCertStore>);

impl SystemRoots {
    fn roots(&self) -> RootCertStore {
        let load = || {
            let mut roots = RootCertStore::empty();
            // Unparsable certificates are skipped, as other programs do.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        };
        self.0.get_or_init(load).clone()
    }
}

/// Makes the configuration of rustls for a profile.
///
/// # Errors
/// [`RegistryError::Certificate`] if a file is unusable.
pub(super) fn config(
    profile: &TlsProfile,
    system: &SystemRoots,
) -> Result<Arc<ClientConfig>, RegistryError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = if profile.unverified {
        Arc::new(NoVerification(Arc::clone(&provider)))
    } else {
        Arc::new(RootVerifier::new(&profile.ca, system.roots(), Arc::clone(&provider))?)
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
        .map_err(|_unreadable| bad(key, "it contains no unencrypted private key"))?;
    let config =
        builder.with_client_auth_cert(certificates(certificate)?, private).map_err(|error| {
            bad(key, &format!("it does not match {}: {error}", certificate.display()))
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
        _ => Err(bad(path, "it contains no PEM certificate")),
    }
}

/// Reads the certificates of a PEM file, in DER.
///
/// # Errors
/// [`RegistryError::Certificate`] if the file cannot be read or contains none.
pub fn read_certificates(path: &Path) -> Result<Vec<Vec<u8>>, RegistryError> {
    Ok(certificates(path)?.into_iter().map(|certificate| certificate.to_vec()).collect())
}

/// Returns the authorities that the system trusts, in DER; those that can be read.
#[must_use]
pub fn system_roots() -> Vec<Vec<u8>> {
    let found = rustls_native_certs::load_native_certs();
    found.certs.into_iter().map(|certificate| certificate.to_vec()).collect()
}

/// Trusts the authorities of the system and the configured ones. Trusts a configured certificate
/// itself, too, for its own names and validity period.
#[derive(Debug)]
struct RootVerifier {
    authorities: Arc<WebPkiServerVerifier>,
    configured: Vec<CertificateDer<'static>>,
}

impl RootVerifier {
    fn new(
        ca: &[PathBuf],
        mut roots: RootCertStore,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, RegistryError> {
        let mut configured = Vec::new();
        for path in ca {
            for certificate in certificates(path)? {
                roots.add(certificate.clone()).map_err(|error| {
                    bad(path, &format!("it contains an invalid certificate: {error}"))
                })?;
                configured.push(certificate);
            }
        }
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let authorities = authorities.build().map_err(|_no_roots| {
            let path = Path::new("/etc/ssl/certs/ca-certificates.crt");
            bad(path, "the system has no trusted CA certificates; install them, or use --ca FILE")
        })?;
        Ok(Self { authorities, configured })
    }
}

impl ServerCertVerifier for RootVerifier {
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
            // For a CA certificate used as a server's, webpki returns an error that it is not an
            // end-entity certificate. It has checked the dates before.
            Err(Error::InvalidCertificate(
                CertificateError::Other(_) | CertificateError::UnknownIssuer,
            )) if self.configured.iter().any(|configured| configured == end_entity) => {
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

/// Accepts every certificate. Signatures of the handshake are verified nevertheless (RFC 8446,
/// section 4.4.3).
#[derive(Debug)]
struct NoVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerification {
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

/// Adds TLS to connections that need it.
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
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|_invalid| ureq::Error::Tls("its name is not valid in a certificate"))?;
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

/// A TLS connection with its buffers.
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
