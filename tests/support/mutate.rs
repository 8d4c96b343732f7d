//! Mutates sentences (bytes, words and lines) and documents of any bytes.
#![expect(clippy::indexing_slicing, reason = "tests panic on failure")]

use super::generate::Random;

/// Returns `text` with up to four changes. New bytes are taken from `bytes`.
pub(crate) fn mutant(text: &str, bytes: &str, random: &mut Random) -> String {
    let mut text = text.to_owned();
    for _ in 0..random.below(5) {
        text = match random.below(3) {
            0 => in_words(&text, ' ', random),
            1 if text.contains('\n') => in_words(&text, '\n', random),
            _ => in_bytes(&text, bytes.as_bytes(), random),
        };
    }
    text
}

/// Swaps, removes or duplicates a piece between two `separator`s.
fn in_words(text: &str, separator: char, random: &mut Random) -> String {
    let mut words: Vec<&str> = text.split(separator).collect();
    let at = random.below(words.len());
    let other = random.below(words.len());
    match random.below(3) {
        0 => words.swap(at, other),
        1 => drop(words.remove(at)),
        _ => words.insert(other, words[at]),
    }
    words.join(&separator.to_string())
}

fn in_bytes(text: &str, bytes: &[u8], random: &mut Random) -> String {
    let mut text = text.as_bytes().to_vec();
    let at = random.below(text.len() + 1);
    let byte = bytes[random.below(bytes.len())];
    match random.below(4) {
        0 => text.insert(at, byte),
        1 if at < text.len() => text[at] = byte,
        2 if at < text.len() => drop(text.remove(at)),
        _ => text.truncate(at.max(text.len() / 2)),
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Returns `bytes` with one to four changes, some of which put in one of `words`.
pub(crate) fn damaged(bytes: &[u8], words: &[&[u8]], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(4) {
        let start = random.below(bytes.len() + 1);
        let end = start + random.below((bytes.len() - start).min(64) + 1);
        let piece = bytes[start..end].to_vec();
        match random.below(6) {
            0 => drop(bytes.drain(start..end)),
            1 => drop(bytes.splice(end..end, piece)),
            2 if !words.is_empty() => {
                let word = words[random.below(words.len())];
                drop(bytes.splice(start..end, word.iter().copied()));
            }
            3 => bytes.truncate(end.max(bytes.len() / 2)),
            4 if start < bytes.len() => bytes[start] ^= 1 << random.below(8),
            _ if start < bytes.len() => {
                bytes[start] = [0, 0x7f, 0x80, 0xff, b'\n'][random.below(5)];
            }
            _ => bytes.push(b' '),
        }
    }
    bytes
}
