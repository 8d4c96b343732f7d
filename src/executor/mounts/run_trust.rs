//! Certificates that the commands of RUN steps trust: files and variables for the programs that look
//! for them there. The files of the image are [`TrustedFiles`](super::trusted_files::TrustedFiles).

use std::fmt::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::Mode;

use crate::pathio::{self, Context as _, PathError};

/// Directory in a step with the files for the variables. `/dev` is never part of a layer.
pub(in crate::executor) const DIRECTORY: &str = "/dev/rbuild-ca";

/// All trusted certificates, for the variables that replace a program's own.
const BUNDLE: &str = "bundle.pem";
/// The additional certificates alone, for `NODE_EXTRA_CA_CERTS`.
const EXTRA: &str = "extra.pem";
/// wget of Debian uses GnuTLS, which knows no variable.
const WGET: &str = "wgetrc";
/// So does apt.
const APT: &str = "apt.conf";

/// wget then does not read the file `.wgetrc` of the user's home directory.
pub(in crate::executor) const WGETRC: &str = "WGETRC";

/// Variables and the files that they name: OpenSSL and Go, Node.js, pip, requests, git, curl, AWS CLI,
/// cargo, wget, apt.
const VARIABLES: [(&str, &str); 10] = [
    ("SSL_CERT_FILE", BUNDLE),
    ("NODE_EXTRA_CA_CERTS", EXTRA),
    ("PIP_CERT", BUNDLE),
    ("REQUESTS_CA_BUNDLE", BUNDLE),
    ("GIT_SSL_CAINFO", BUNDLE),
    ("CURL_CA_BUNDLE", BUNDLE),
    ("AWS_CA_BUNDLE", BUNDLE),
    ("CARGO_HTTP_CAINFO", BUNDLE),
    (WGETRC, WGET),
    ("APT_CONFIG", APT),
];

/// First and last line of the additional certificates in a bundle. Readers skip text between
/// certificates (RFC 7468, section 2).
const BEGIN: &str = "# certificates for this step only: begin";
const END: &str = "# certificates for this step only: end";

/// Certificates for RUN steps, in DER (RFC 5280).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunTrust {
    /// The certificates of `--ca-for-run`.
    pub extra: Vec<Vec<u8>>,
    /// The roots that this machine trusts, for images without any.
    pub roots: Vec<Vec<u8>>,
}

impl RunTrust {
    /// Returns the lines that are appended to a bundle.
    pub(super) fn block(&self) -> String {
        format!("\n{BEGIN}\n{}{END}\n", pem(&self.extra))
    }

    /// Returns all certificates for an image whose own bundle is `own`.
    pub(super) fn bundle(&self, own: Option<&[u8]>) -> Vec<u8> {
        let mut text = own.map_or_else(|| pem(&self.roots).into_bytes(), <[u8]>::to_vec);
        text.extend_from_slice(self.block().as_bytes());
        text
    }

    /// Writes the files of the variables to `directory`.
    pub(in crate::executor) fn write(
        &self,
        directory: &Path,
        own: Option<&[u8]>,
    ) -> Result<(), PathError> {
        pathio::create_dir_all(directory)?;
        let wgetrc = format!("ca_certificate = {DIRECTORY}/{BUNDLE}\n");
        let apt = format!("Acquire::https::CaInfo \"{DIRECTORY}/{BUNDLE}\";\n");
        // Any user of the step may read them: apt drops its rights before it connects.
        let allow = |path: &Path, mode| {
            rustix::fs::chmod(path, Mode::from_raw_mode(mode)).context("change the mode of", path)
        };
        allow(directory, 0o755)?;
        for (name, content) in [
            (BUNDLE, self.bundle(own)),
            (EXTRA, self.block().into_bytes()),
            (WGET, wgetrc.into_bytes()),
            (APT, apt.into_bytes()),
        ] {
            let path = directory.join(name);
            pathio::write(&path, &content)?;
            allow(&path, 0o644)?;
        }
        Ok(())
    }
}

/// Returns the variables, without those that the step has already.
pub(in crate::executor) fn variables(is_set: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let missing = VARIABLES.into_iter().filter(|(name, _)| !is_set(name));
    missing.map(|(name, file)| (name.to_owned(), format!("{DIRECTORY}/{file}"))).collect()
}

/// Returns the names of variables that may name a bundle in the image.
pub(super) fn bundle_variables() -> impl Iterator<Item = &'static str> {
    VARIABLES.into_iter().filter(|(_, file)| [BUNDLE, EXTRA].contains(file)).map(|(name, _)| name)
}

/// Returns certificates in PEM (RFC 7468).
fn pem(certificates: &[Vec<u8>]) -> String {
    /// Characters of a line (RFC 7468, section 2).
    const LINE_BYTES: usize = 64;
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(certificate);
        for line in encoded.as_bytes().chunks(LINE_BYTES) {
            // Writing to a string cannot fail.
            let _written = writeln!(text, "{}", String::from_utf8_lossy(line));
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundle_has_the_certificates_of_the_image_or_of_the_machine() {
        let trust = RunTrust { extra: vec![vec![0; 50]], roots: vec![vec![1]] };
        let extra = "-----BEGIN CERTIFICATE-----\n\
            AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\nAAA=\n\
            -----END CERTIFICATE-----\n";
        let block = format!("\n{BEGIN}\n{extra}{END}\n");
        assert_eq!(trust.bundle(Some(b"own\n")), format!("own\n{block}").into_bytes());
        let roots = "-----BEGIN CERTIFICATE-----\nAQ==\n-----END CERTIFICATE-----\n";
        assert_eq!(trust.bundle(None), format!("{roots}{block}").into_bytes());
    }

    #[test]
    fn variables_of_the_step_win() {
        let set = variables(|name| name == "PIP_CERT");
        assert!(set.iter().all(|(name, _)| name != "PIP_CERT"));
        let node = ("NODE_EXTRA_CA_CERTS".to_owned(), "/dev/rbuild-ca/extra.pem".to_owned());
        assert!(set.contains(&node) && set.len() == VARIABLES.len() - 1);
    }
}
