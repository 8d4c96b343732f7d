//! Digests, passwords and UUIDs.

use aws_lc_rs::digest::{self, Algorithm};
use aws_lc_rs::rsa::{Pkcs1PrivateDecryptingKey, PrivateDecryptingKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};

use super::arguments::{text, whole};
use super::{Ambient, Function, Outcome, Param, Run};
use crate::bake::value::Value;

/// A source of random bytes: a seed of the caller, and a counter.
#[derive(Debug, Clone)]
pub struct Randomness {
    seed: [u8; 32],
    n_used: u64,
}

impl Randomness {
    /// Makes a source whose bytes follow from the seed.
    #[must_use]
    pub const fn of(seed: [u8; 32]) -> Self {
        Self { seed, n_used: 0 }
    }

    fn bytes(&mut self) -> [u8; 16] {
        self.n_used += 1;
        let input = [self.seed.as_slice(), &self.n_used.to_le_bytes()].concat();
        first_16(digest::digest(&digest::SHA256, &input).as_ref())
    }
}

fn first_16(bytes: &[u8]) -> [u8; 16] {
    let mut first = [0; 16];
    for (to, from) in first.iter_mut().zip(bytes) {
        *to = *from;
    }
    first
}

const fn function(
    name: &'static str,
    params: &'static [Param],
    run: fn(&[Value]) -> Outcome,
) -> Function {
    Function { name, params, variadic: None, run: Run::Pure(run) }
}

const ONE: &[Param] = &[Param::Text];

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "bcrypt",
        params: ONE,
        variadic: Some(Param::Number),
        run: Run::Ambient(bcrypt),
    },
    function("md5", ONE, |a| Ok(Value::text(hex(&Md5::digest(text(a, 0)?))))),
    function("rsadecrypt", &[Param::Text, Param::Text], decrypt),
    function("sha1", ONE, |a| hashed(&digest::SHA1_FOR_LEGACY_USE_ONLY, a)),
    function("sha256", ONE, |a| hashed(&digest::SHA256, a)),
    function("sha512", ONE, |a| hashed(&digest::SHA512, a)),
    Function {
        name: "uuidv4",
        params: &[],
        variadic: None,
        run: Run::Ambient(|_, ambient| Ok(Value::text(uuid(ambient.randomness.bytes(), 4)))),
    },
    function("uuidv5", &[Param::Text, Param::Text], |a| {
        let namespace = namespace(text(a, 0)?)?;
        let input = [namespace.as_slice(), text(a, 1)?.as_bytes()].concat();
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &input);
        Ok(Value::text(uuid(first_16(digest.as_ref()), 5)))
    }),
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hashed(algorithm: &'static Algorithm, values: &[Value]) -> Outcome {
    Ok(Value::text(hex(digest::digest(algorithm, text(values, 0)?.as_bytes()).as_ref())))
}

/// Hashes a password. The cost is 10 by default, and at most 16: each step doubles the time.
fn bcrypt(values: &[Value], ambient: &mut Ambient) -> Outcome {
    let cost = match values.len() {
        1 => 10,
        2 => u32::try_from(whole(values, 1)?).ok().ok_or("the cost must be positive")?,
        _ => return Err("takes a text and perhaps a cost".to_owned()),
    };
    if !(4..=16).contains(&cost) {
        return Err(format!("the cost must be between 4 and 16, not {cost}"));
    }
    let password = text(values, 0)?;
    if password.len() > 72 {
        return Err("a password for bcrypt has at most 72 bytes".to_owned());
    }
    let hash = ::bcrypt::hash_with_salt(password, cost, ambient.randomness.bytes());
    let hash = hash.map_err(|error| error.to_string())?;
    Ok(Value::text(hash.format_for_version(::bcrypt::Version::TwoA)))
}

/// Decrypts a ciphertext in base64 with a private key in PEM, by PKCS #1 v1.5.
fn decrypt(values: &[Value]) -> Outcome {
    let ciphertext = STANDARD.decode(text(values, 0)?);
    let ciphertext = ciphertext.ok().ok_or("argument 1 is not base64")?;
    let pem = text(values, 1)?;
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(body.trim()).ok().ok_or("argument 2 is not a key in PEM")?;
    // A key in PKCS #1 is the last part of one in PKCS #8.
    let pkcs8 = if pem.contains("RSA PRIVATE KEY") { wrap_pkcs1(&der) } else { der };
    let key = PrivateDecryptingKey::from_pkcs8(&pkcs8).ok();
    let key = key.and_then(|key| Pkcs1PrivateDecryptingKey::new(key).ok());
    let key = key.ok_or("argument 2 is not a private RSA key of 2048 bits or more")?;
    let mut plain = vec![0; key.min_output_size()];
    let plain = key.decrypt(&ciphertext, &mut plain);
    let plain = plain.ok().ok_or("the key does not decrypt the ciphertext")?;
    let plain = String::from_utf8(plain.to_vec()).ok().map(Value::String);
    plain.ok_or_else(|| "the decrypted bytes are not UTF-8".to_owned())
}

/// Puts a key in PKCS #1 into PKCS #8 (RFC 5208): version, algorithm, and the key as an octet string.
fn wrap_pkcs1(key: &[u8]) -> Vec<u8> {
    const VERSION: [u8; 3] = [0x02, 0x01, 0x00];
    // SEQUENCE { OBJECT IDENTIFIER rsaEncryption (RFC 8017), NULL }
    const ALGORITHM: [u8; 15] =
        [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let content = [VERSION.as_slice(), &ALGORITHM, &element(0x04, key)].concat();
    element(0x30, &content)
}

/// Returns an element of DER: tag, length, content.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let first = length.iter().position(|byte| *byte != 0).unwrap_or(length.len());
    let digits = length.get(first..).unwrap_or(&[]);
    let short = digits.len() <= 1 && content.len() < 0x80;
    let count = u8::try_from(digits.len()).unwrap_or(u8::MAX);
    let mut out = vec![tag];
    if short {
        out.push(u8::try_from(content.len()).unwrap_or(0));
    } else {
        out.push(0x80 | count);
        out.extend_from_slice(digits);
    }
    out.extend_from_slice(content);
    out
}

/// Writes a UUID with its version and variant (RFC 9562).
fn uuid(mut bytes: [u8; 16], version: u8) -> String {
    let [_, _, _, _, _, _, seventh, _, ninth, ..] = &mut bytes;
    *seventh = (*seventh & 0x0f) | (version << 4);
    *ninth = (*ninth & 0x3f) | 0x80;
    let all = hex(&bytes);
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32];
    parts.map(|range| all.get(range).unwrap_or("").to_owned()).join("-")
}

/// Returns the namespace of a name: one of the four in RFC 9562, or a UUID.
fn namespace(name: &str) -> Result<[u8; 16], String> {
    let last = match name {
        "dns" | "" => 0x10,
        "url" => 0x11,
        "oid" => 0x12,
        "x500" => 0x14,
        other => return parse_uuid(other),
    };
    let mut bytes = [
        0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30,
        0xc8,
    ];
    let [_, _, _, fourth, ..] = &mut bytes;
    *fourth = last;
    Ok(bytes)
}

fn parse_uuid(text: &str) -> Result<[u8; 16], String> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| *c != '-')
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()
        .filter(|digits: &Vec<u8>| digits.len() == 32)
        .ok_or_else(|| format!("{text:?} is neither dns, url, oid or x500 nor a UUID"))?;
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => high << 4 | low,
            _ => 0,
        })
        .collect();
    Ok(first_16(&bytes))
}
