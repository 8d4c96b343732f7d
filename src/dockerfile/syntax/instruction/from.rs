//! Parses `FROM`, which begins a stage (<https://docs.docker.com/reference/dockerfile/#from>).

use nom::Parser as _;
use nom::bytes::complete::take_while;
use nom::character::complete::satisfy;
use nom::combinator::all_consuming;

use crate::diag::codes;
use crate::dockerfile::ir;

use crate::dockerfile::syntax::blank::bare_words;
use crate::dockerfile::syntax::reader::{FlagValue, InstructionReader, KnownFlag};

const FLAGS: [KnownFlag; 1] = [("platform", FlagValue::Text)];

/// grammar: from
pub(super) fn from<'a>(reader: &mut InstructionReader<'a>, rest: &'a str) -> Option<ir::From> {
    let (arguments, flags) = reader.flags(rest, &FLAGS);
    let platform = flags.first().and_then(|flag| reader.flag_some(flag));
    let keyword = reader.word(reader.keyword_part);
    let words = bare_words(arguments);
    let (image, name) = match words.as_slice() {
        [] => {
            reader.missing(
                "FROM needs an image".to_owned(),
                "expected an image or an earlier stage",
                "write `FROM image`, `FROM image AS name`, or `FROM scratch` for an empty root file system",
            );
            return None;
        }
        [image] => (image, None),
        [image, separator, name] if separator.eq_ignore_ascii_case("as") => {
            (image, Some((reader.word(separator), reader.word(name))))
        }
        [_, second, ..] => {
            let message = "FROM takes one word (the image) or three (`image AS name`)".to_owned();
            reader.error(codes::BAD_ARGUMENT, second, message, "expected `AS name` or nothing");
            return None;
        }
    };
    if let [_, _, name] = words.as_slice()
        && !is_stage_name(name)
    {
        reader.error(
            codes::BAD_STAGE_NAME,
            name,
            format!("`{name}` is not a valid stage name"),
            "expected a letter, then letters, digits, `-`, `_` and `.`",
        );
    }
    Some(ir::From { keyword, platform, image: reader.word(image), name })
}

/// grammar: stage_name
fn is_stage_name(name: &str) -> bool {
    let head = satisfy(|char| char.is_ascii_alphabetic());
    let tail =
        take_while(|char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.'));
    let parsed: nom::IResult<&str, _> = all_consuming((head, tail)).parse(name);
    parsed.is_ok()
}
