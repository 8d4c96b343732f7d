//! Java's truststores in the format JKS, which every Java reads, whatever its default type is (JEP 229,
//! `keystore.type.compat`). The format is that of `sun.security.provider.JavaKeyStore` in OpenJDK.

use aws_lc_rs::digest;

const MAGIC: [u8; 4] = [0xFE, 0xED, 0xFE, 0xED];
const VERSION: [u8; 4] = [0, 0, 0, 2];
/// Tags of entries.
const PRIVATE_KEY: u32 = 1;
const CERTIFICATE: u32 = 2;
/// Length of the SHA-1 digest at the end.
const DIGEST_BYTES: usize = 20;
/// The password of `cacerts` in every distribution of Java.
const PASSWORD: &str = "changeit";
/// The start of the aliases of added certificates.
const ALIAS: &str = "rbuild-step-only-";

/// One entry as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    alias: Vec<u8>,
    bytes: Vec<u8>,
}

impl Entry {
    /// Returns the entry of a certificate in DER that is added for a step.
    pub(super) fn added(nth: usize, certificate: &[u8]) -> Option<Self> {
        let alias = format!("{ALIAS}{nth}").into_bytes();
        let mut bytes = CERTIFICATE.to_be_bytes().to_vec();
        put_text(&mut bytes, &alias)?;
        bytes.extend_from_slice(&[0; 8]);
        put_text(&mut bytes, b"X.509")?;
        bytes.extend_from_slice(&u32::try_from(certificate.len()).ok()?.to_be_bytes());
        bytes.extend_from_slice(certificate);
        Some(Self { alias, bytes })
    }

    /// Returns whether it was added for a step.
    pub(super) fn is_added(&self) -> bool {
        self.alias.starts_with(ALIAS.as_bytes())
    }
}

fn put_text(into: &mut Vec<u8>, text: &[u8]) -> Option<()> {
    into.extend_from_slice(&u16::try_from(text.len()).ok()?.to_be_bytes());
    into.extend_from_slice(text);
    Some(())
}

/// Returns the store as a file.
pub(super) fn write(entries: &[Entry]) -> Option<Vec<u8>> {
    let mut file = [MAGIC, VERSION].concat();
    file.extend_from_slice(&u32::try_from(entries.len()).ok()?.to_be_bytes());
    for entry in entries {
        file.extend_from_slice(&entry.bytes);
    }
    let digest = keyed_digest(&file);
    file.extend_from_slice(&digest);
    Some(file)
}

/// Returns the entries of a JKS file with the usual password; `None` for any other file.
pub(super) fn parse(file: &[u8]) -> Option<Vec<Entry>> {
    let (body, digest) = file.split_at_checked(file.len().checked_sub(DIGEST_BYTES)?)?;
    let mut reader = Reader { rest: body };
    if reader.take(4)? != MAGIC || reader.take(4)? != VERSION || keyed_digest(body) != digest {
        return None;
    }
    let n_entries = reader.number()?;
    let mut entries = Vec::new();
    for _ in 0..n_entries {
        entries.push(reader.entry()?);
    }
    reader.rest.is_empty().then_some(entries)
}

/// SHA-1 of the password in UTF-16, a fixed text, and the file before the digest.
fn keyed_digest(body: &[u8]) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    for unit in PASSWORD.encode_utf16() {
        context.update(&unit.to_be_bytes());
    }
    context.update(b"Mighty Aphrodite");
    context.update(body);
    context.finish().as_ref().to_vec()
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, n_bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n_bytes)?;
        self.rest = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = u16::from_be_bytes(self.take(2)?.try_into().ok()?);
        self.take(length.into())
    }

    fn block(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(usize::try_from(length).ok()?)
    }

    fn certificate(&mut self) -> Option<()> {
        self.text()?;
        self.block().map(drop)
    }

    fn entry(&mut self) -> Option<Entry> {
        let start = self.rest;
        let tag = self.number()?;
        let alias = self.text()?.to_vec();
        self.take(8)?;
        match tag {
            CERTIFICATE => self.certificate()?,
            PRIVATE_KEY => {
                self.block()?;
                for _ in 0..self.number()? {
                    self.certificate()?;
                }
            }
            _ => return None,
        }
        let bytes = start.get(..start.len().checked_sub(self.rest.len())?)?.to_vec();
        Some(Entry { alias, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_store_is_read_again() {
        let entries: Vec<Entry> = [b"one".as_slice(), b""]
            .iter()
            .enumerate()
            .filter_map(|(n, der)| Entry::added(n, der))
            .collect();
        let file = write(&entries).unwrap();
        assert_eq!(parse(&file), Some(entries));
        assert_eq!(write(&[]).map(|file| file.len()), Some(12 + DIGEST_BYTES));
    }

    #[test]
    fn store_of_keytool_is_read_and_written_unchanged() {
        let file = include_bytes!("../../../testdata/java/keytool.jks");
        let entries = parse(file).unwrap();
        let aliases: Vec<&[u8]> = entries.iter().map(|entry| entry.alias.as_slice()).collect();
        assert_eq!(aliases, [b"second".as_slice(), b"mykey"]);
        assert_eq!(write(&entries).unwrap(), file);
    }

    #[test]
    fn damaged_store_is_refused() {
        let file = write(&[Entry::added(0, b"certificate").unwrap()]).unwrap();
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert_eq!(parse(&damaged), None, "byte {at}");
            assert_eq!(parse(file.get(..at).unwrap()), None, "{at} bytes");
        }
    }
}
