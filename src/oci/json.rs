//! The JSON formats: compact for configs, indented by two spaces for manifests and indexes, and the same
//! with the escapes of Go for documents that docker writes, too. Digests depend on the exact bytes.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};

/// Serializes on one line without white space: the format of an image config.
///
/// # Panics
/// Never for types of this module: their maps have text keys.
#[must_use]
pub fn compact(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("maps have text keys, and nothing fails to serialize")
}

/// Serializes with an indentation of two spaces and no final newline: the format of a manifest or
/// index.
///
/// # Panics
/// Never for types of this module: their maps have text keys.
#[must_use]
pub fn pretty(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("maps have text keys, and nothing fails to serialize")
}

/// Serializes like [`pretty`], with the escapes of Go's `json.MarshalIndent`: `<`, `>`, `&` and two line
/// separators (<https://pkg.go.dev/encoding/json#Marshal>).
///
/// # Panics
/// Never for values whose maps have text keys.
#[must_use]
pub fn pretty_as_go(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, GoFormatter::default());
    value.serialize(&mut serializer).expect("maps have text keys, and nothing fails to serialize");
    bytes
}

/// The format of [`pretty_as_go`].
#[derive(Default)]
struct GoFormatter {
    pretty: PrettyFormatter<'static>,
}

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        for part in fragment.split_inclusive(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let mut chars = part.chars();
            match chars.next_back() {
                Some(c @ ('<' | '>' | '&' | '\u{2028}' | '\u{2029}')) => {
                    write!(writer, "{}\\u{:04x}", chars.as_str(), u32::from(c))?;
                }
                _ => writer.write_all(part.as_bytes())?,
            }
        }
        Ok(())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.pretty.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.pretty.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_escapes_markup_and_line_separators() {
        let value = serde_json::json!({ "a": ["<b> & \u{2028}\"", {}], "c": [] });
        let want = "{\n  \"a\": [\n    \"\\u003cb\\u003e \\u0026 \\u2028\\\"\",\n    {}\n  ],\n  \"c\": []\n}";
        assert_eq!(String::from_utf8(pretty_as_go(&value)).unwrap(), want);
    }
}
