//! Private keys for `--ssh id=FILE`: read once, kept in memory, used to sign what a step requests.
//!
//! Formats: OpenSSH's own (<https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.key>),
//! and PKCS#1 for RSA (RFC 8017, appendix A.1.2). Keys with a passphrase are refused: a build
//! cannot ask for it.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// First bytes of an OpenSSH key (PROTOCOL.key, `AUTH_MAGIC`).
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// `SSH_AGENT_RSA_SHA2_256` (draft-miller-ssh-agent, "Signature flags").
const RSA_SHA2_256: u32 = 2;
/// `SSH_AGENT_RSA_SHA2_512` (draft-miller-ssh-agent, "Signature flags").
const RSA_SHA2_512: u32 = 4;

/// A private key that can sign.
pub struct SshKey {
    /// The public key in the encoding of the ssh protocol (RFC 4253, section 6.6).
    blob: Vec<u8>,
    comment: Vec<u8>,
    pair: SigningKey,
}

enum SigningKey {
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
    /// The name of the algorithm, and the key.
    Ecdsa(Vec<u8>, EcdsaKeyPair),
}

/// An error of a key file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key is encrypted with a passphrase.
    #[error("it has a passphrase: load it with ssh-add and use the agent instead")]
    Passphrase,
    /// The file has an unsupported format.
    #[error("it is not an OpenSSH private key; `ssh-keygen -p -f FILE` converts other formats")]
    UnknownForm,
    /// The key is for an unsupported algorithm.
    #[error("its type is not supported, only ed25519, rsa and ecdsa")]
    UnknownKind,
    /// The file contradicts itself.
    #[error("it is damaged")]
    Damaged,
}

impl std::fmt::Debug for SshKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SshKey").field("comment", &String::from_utf8_lossy(&self.comment)).finish()
    }
}

impl SshKey {
    /// Reads a key file.
    ///
    /// # Errors
    /// Any [`KeyError`].
    pub fn parse(text: &[u8]) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(text).map_err(|_not_text| KeyError::UnknownForm)?;
        if let Some(body) = pem_body(text, "OPENSSH PRIVATE KEY") {
            return Self::openssh(&body?);
        }
        match pem_body(text, "RSA PRIVATE KEY") {
            Some(body) => Self::pkcs1(&body?),
            None if text.contains("BEGIN ENCRYPTED PRIVATE KEY") => Err(KeyError::Passphrase),
            None => Err(KeyError::UnknownForm),
        }
    }

    fn openssh(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut outer = SshReader(bytes.strip_prefix(MAGIC).ok_or(KeyError::UnknownForm)?);
        let cipher = outer.string()?;
        let (_kdf, _options) = (outer.string()?, outer.string()?);
        if cipher != b"none" {
            return Err(KeyError::Passphrase);
        }
        if outer.number()? != 1 {
            return Err(KeyError::Damaged);
        }
        let blob = outer.string()?.to_vec();
        let mut inner = SshReader(outer.string()?);
        if inner.number()? != inner.number()? {
            return Err(KeyError::Damaged);
        }
        let kind = inner.string()?;
        let pair = match kind {
            b"ssh-ed25519" => {
                let (public, private) = (inner.string()?, inner.string()?);
                let seed = private.get(..32).ok_or(KeyError::Damaged)?;
                let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public);
                SigningKey::Ed25519(pair.map_err(|_why| KeyError::Damaged)?)
            }
            b"ssh-rsa" => {
                let [n, e, d, inverse, p, q] = inner.numbers()?;
                let (for_p, for_q) = (remainder(d, &less_one(p)), remainder(d, &less_one(q)));
                rsa(n, e, d, p, q, &for_p, &for_q, inverse)?
            }
            b"ecdsa-sha2-nistp256" | b"ecdsa-sha2-nistp384" | b"ecdsa-sha2-nistp521" => {
                let (_curve, point, secret) = (inner.string()?, inner.string()?, inner.unsigned()?);
                ecdsa(kind, point, secret)?
            }
            _ => return Err(KeyError::UnknownKind),
        };
        Ok(Self { blob, comment: inner.string()?.to_vec(), pair })
    }

    fn pkcs1(der: &[u8]) -> Result<Self, KeyError> {
        let mut outer = DerReader(der);
        let mut inner = DerReader(outer.value(0x30)?);
        let [_version, n, e, d, p, q, for_p, for_q, inverse] = inner.integers()?;
        let pair = rsa(n, e, d, p, q, for_p, for_q, inverse)?;
        let mut blob = string(b"ssh-rsa");
        blob.extend(mpint(e));
        blob.extend(mpint(n));
        Ok(Self { blob, comment: Vec::new(), pair })
    }

    /// Returns the public key in the encoding of the ssh protocol (RFC 4253, section 6.6).
    #[must_use]
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// Returns the comment in the key file.
    #[must_use]
    pub fn comment(&self) -> &[u8] {
        &self.comment
    }

    /// Signs `data`; `None` for an unsupported scheme, such as RSA with SHA-1 (RFC 8332, section
    /// 3).
    #[must_use]
    pub fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        let (name, signature) = match &self.pair {
            SigningKey::Ed25519(pair) => {
                (b"ssh-ed25519".to_vec(), pair.sign(data).as_ref().to_vec())
            }
            SigningKey::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let (name, padding) = match flags {
                    flags if flags & RSA_SHA2_512 != 0 => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
                    flags if flags & RSA_SHA2_256 != 0 => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
                    _ => return None,
                };
                pair.sign(padding, &random, data, &mut signature).ok()?;
                (name.as_bytes().to_vec(), signature)
            }
            SigningKey::Ecdsa(kind, pair) => {
                let signature = pair.sign(&random, data).ok()?;
                let (r, s) = signature.as_ref().split_at_checked(signature.as_ref().len() / 2)?;
                (kind.clone(), [mpint(r), mpint(s)].concat())
            }
        };
        Some([string(&name), string(&signature)].concat())
    }
}

#[expect(clippy::too_many_arguments, reason = "these are the numbers that an RSA key consists of")]
fn rsa(
    n: &[u8],
    e: &[u8],
    d: &[u8],
    p: &[u8],
    q: &[u8],
    for_p: &[u8],
    for_q: &[u8],
    inverse: &[u8],
) -> Result<SigningKey, KeyError> {
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n, e },
        d,
        p,
        q,
        dP: for_p,
        dQ: for_q,
        qInv: inverse,
    };
    let pair = RsaKeyPair::from_components(&components);
    pair.map(SigningKey::Rsa).map_err(|_why| KeyError::Damaged)
}

fn ecdsa(kind: &[u8], point: &[u8], secret: &[u8]) -> Result<SigningKey, KeyError> {
    let (algorithm, n_bytes): (&'static EcdsaSigningAlgorithm, usize) = match kind {
        b"ecdsa-sha2-nistp256" => (&ECDSA_P256_SHA256_FIXED_SIGNING, 32),
        b"ecdsa-sha2-nistp384" => (&ECDSA_P384_SHA384_FIXED_SIGNING, 48),
        _ => (&ECDSA_P521_SHA512_FIXED_SIGNING, 66),
    };
    let missing = n_bytes.checked_sub(secret.len()).ok_or(KeyError::Damaged)?;
    let secret = [vec![0; missing], secret.to_vec()].concat();
    let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &secret, point);
    pair.map(|pair| SigningKey::Ecdsa(kind.to_vec(), pair)).map_err(|_why| KeyError::Damaged)
}

/// Decodes the text between the BEGIN and END lines of a `kind` (RFC 7468, section 2).
fn pem_body(text: &str, kind: &str) -> Option<Result<Vec<u8>, KeyError>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {kind}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {kind}-----"))?;
    if body.contains("ENCRYPTED") {
        return Some(Err(KeyError::Passphrase));
    }
    let digits: String = body.split_whitespace().collect();
    Some(STANDARD.decode(digits).map_err(|_bad| KeyError::Damaged))
}

/// Returns bytes with their length in front (RFC 4251, section 5, `string`).
pub(in crate::executor) fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), bytes].concat()
}

/// Encodes a positive number: no leading zeros but for the sign (RFC 4251, section 5, `mpint`).
fn mpint(number: &[u8]) -> Vec<u8> {
    let number = trimmed(number);
    let is_negative = number.first().is_some_and(|byte| byte & 0x80 != 0);
    let sign: &[u8] = if is_negative { &[0] } else { &[] };
    string(&[sign, number].concat())
}

fn trimmed(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// Returns an odd number minus one: a prime's last byte never borrows.
fn less_one(prime: &[u8]) -> Vec<u8> {
    let mut number = prime.to_vec();
    if let Some(last) = number.last_mut() {
        *last &= 0xfe;
    }
    number
}

/// Returns `number` modulo `by`, both big-endian, by bitwise long division. Called twice for each
/// key that is read, so it need not be fast.
fn remainder(number: &[u8], by: &[u8]) -> Vec<u8> {
    let by = trimmed(by);
    // One byte more than `by`, for the bit that is shifted out.
    let mut rest = vec![0_u8; by.len() + 1];
    for bit in number.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        let mut carry = bit;
        for byte in rest.iter_mut().rev() {
            let next = *byte >> 7;
            *byte = *byte << 1 | carry;
            carry = next;
        }
        let is_less = rest.first() == Some(&0) && rest.get(1..).is_some_and(|rest| rest < by);
        if !is_less {
            subtract(&mut rest, by);
        }
    }
    trimmed(&rest).to_vec()
}

fn subtract(from: &mut [u8], number: &[u8]) {
    let mut borrow = false;
    let digits = number.iter().rev().copied().chain(std::iter::repeat(0));
    for (byte, digit) in from.iter_mut().rev().zip(digits) {
        let (less, below) = byte.overflowing_sub(digit);
        let (less, further) = less.overflowing_sub(u8::from(borrow));
        *byte = less;
        borrow = below || further;
    }
}

/// Reads fields of the ssh protocol (RFC 4251, section 5).
pub(in crate::executor) struct SshReader<'a>(pub(in crate::executor) &'a [u8]);

impl<'a> SshReader<'a> {
    pub(in crate::executor) fn number(&mut self) -> Result<u32, KeyError> {
        let (number, rest) = self.0.split_first_chunk().ok_or(KeyError::Damaged)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*number))
    }

    pub(in crate::executor) fn string(&mut self) -> Result<&'a [u8], KeyError> {
        let length = usize::try_from(self.number()?).map_err(|_long| KeyError::Damaged)?;
        let (string, rest) = self.0.split_at_checked(length).ok_or(KeyError::Damaged)?;
        self.0 = rest;
        Ok(string)
    }

    fn unsigned(&mut self) -> Result<&'a [u8], KeyError> {
        self.string().map(trimmed)
    }

    fn numbers<const N: usize>(&mut self) -> Result<[&'a [u8]; N], KeyError> {
        let mut numbers: [&[u8]; N] = [&[]; N];
        for number in &mut numbers {
            *number = self.unsigned()?;
        }
        Ok(numbers)
    }
}

/// Reads DER, the encoding of PKCS#1: values with a tag and a length (X.690, section 8.1).
struct DerReader<'a>(&'a [u8]);

impl<'a> DerReader<'a> {
    fn value(&mut self, tag: u8) -> Result<&'a [u8], KeyError> {
        let (found, rest) = self.0.split_first().ok_or(KeyError::Damaged)?;
        let (first, mut rest) = rest.split_first().ok_or(KeyError::Damaged)?;
        let mut length = usize::from(*first);
        if *first >= 0x80 {
            let n_bytes = usize::from(first & 0x7f);
            let (bytes, after) =
                rest.split_at_checked(n_bytes).filter(|_| n_bytes <= 4).ok_or(KeyError::Damaged)?;
            length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            rest = after;
        }
        let (value, rest) = rest.split_at_checked(length).ok_or(KeyError::Damaged)?;
        self.0 = rest;
        if *found == tag { Ok(value) } else { Err(KeyError::Damaged) }
    }

    fn integers<const N: usize>(&mut self) -> Result<[&'a [u8]; N], KeyError> {
        let mut integers: [&[u8]; N] = [&[]; N];
        for integer in &mut integers {
            *integer = trimmed(self.value(0x02)?);
        }
        Ok(integers)
    }
}
