//! Parses `RUN --mount`: options separated by commas, with the quotes of CSV (RFC 4180)
//! (<https://docs.docker.com/reference/dockerfile/#run---mount>).

use nom::branch::alt;
use nom::bytes::complete::{tag, take_till, take_till1};
use nom::character::complete::char;
use nom::combinator::{all_consuming, consumed, map, value};
use nom::multi::{fold_many0, separated_list1};
use nom::sequence::delimited;
use nom::{IResult, Offset as _, Parser as _};

use crate::diag::{Diagnostic, Span, Spanned, codes, nearest};
use crate::dockerfile::ir::{Mount, MountType, Sharing, Word};

use crate::dockerfile::syntax::flag::RawFlag;
use crate::dockerfile::syntax::reader::InstructionReader;
use crate::dockerfile::syntax::value;

const KEYS: [&str; 19] = [
    "type",
    "target",
    "dst",
    "destination",
    "source",
    "src",
    "from",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
];

/// Parses the value of a `--mount`; a mount with errors is reported and left out.
///
/// grammar: mount
pub(super) fn mount(
    reader: &mut InstructionReader<'_>,
    flag: &RawFlag<'_>,
) -> Option<Spanned<Mount>> {
    let word = reader.flag_word(flag);
    let written = flag.value.as_ref().map_or("", |(part, _)| part);
    let parsed: IResult<&str, _> = all_consuming(fields).parse(word.value.as_str());
    let Ok((_, fields)) = parsed else {
        let message =
            "a quote in `--mount` is not closed or does not enclose a whole option".to_owned();
        reader.error(codes::BAD_MOUNT, written, message, "expected `key=value` options");
        return None;
    };
    // Without quotes, offsets in the value are offsets in the source.
    let exact = (word.span.end - word.span.start == word.value.len() && written == word.value)
        .then_some(word.span.start);
    let mut options = MountReader { reader, span: word.span, mount: empty(), good: true };
    for (raw, field) in fields {
        let at = exact.filter(|_| raw == field).map(|start| start + word.value.offset(raw));
        options.option(&field, at);
    }
    options.check();
    let MountReader { mount, good, .. } = options;
    good.then(|| Spanned::new(mount, word.span))
}

fn fields(input: &str) -> IResult<&str, Vec<(&str, String)>> {
    separated_list1(char(','), consumed(alt((quoted, map(plain, str::to_owned))))).parse(input)
}

fn plain(input: &str) -> IResult<&str, &str> {
    take_till(|char| matches!(char, ',' | '"')).parse(input)
}

fn quoted(input: &str) -> IResult<&str, String> {
    let part = alt((take_till1(|char| char == '"'), value("\"", tag("\"\""))));
    let text = fold_many0(part, String::new, |mut text: String, part| {
        text.push_str(part);
        text
    });
    delimited(char('"'), text, char('"')).parse(input)
}

fn empty() -> Mount {
    Mount {
        kind: MountType::Bind,
        kind_variable: None,
        target: None,
        source: None,
        from: None,
        read_only: None,
        id: None,
        sharing: None,
        required: None,
        size: None,
        mode: None,
        uid: None,
        gid: None,
        env: None,
    }
}

struct MountReader<'c, 'a> {
    reader: &'c mut InstructionReader<'a>,
    span: Span,
    mount: Mount,
    good: bool,
}

impl MountReader<'_, '_> {
    /// Applies an option; `at` is its offset in the source if it has the same bytes there.
    fn option(&mut self, field: &str, at: Option<usize>) {
        let span_at =
            |start: usize, end: usize| at.map_or(self.span, |at| Span::new(at + start, at + end));
        let whole = span_at(0, field.len());
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => {
                let span = span_at(key.len() + 1, field.len());
                (key, Some(Spanned::new(value.to_owned(), span)))
            }
            None => (field, None),
        };
        let key_span = span_at(0, key.len());
        let key = key.to_ascii_lowercase();
        match (key.as_str(), value) {
            ("readonly" | "ro", value) => self.mount.read_only = self.flag(value, whole),
            ("readwrite" | "rw", value) => {
                self.mount.read_only = self.flag(value, whole).map(|flag| flag.map(|rw| !rw));
            }
            ("required", value) => self.mount.required = self.flag(value, whole),
            (_, Some(value)) => self.key_value(&key, key_span, value),
            (known, None) if KEYS.contains(&known) => {
                let message = format!("option `{field}` of `--mount` must be a `key=value` pair");
                self.error(whole, message, "expected a value", None);
            }
            (_, None) => self.unknown(&key, whole),
        }
    }

    fn key_value(&mut self, key: &str, key_span: Span, value: Word) {
        let mount = &mut self.mount;
        match key {
            "type" => self.kind(value),
            "sharing" => self.sharing(value),
            "from" if value.value.contains('$') => {
                let message = format!("variables are not expanded in `from={}`", value.value);
                let help = "add a stage `FROM … AS name`, where global ARGs work, and name it here";
                self.error(value.span, message, "must be known before", Some(help.into()));
            }
            "from" => mount.from = Some(value).filter(|name| !name.value.is_empty()),
            "target" | "dst" | "destination" => mount.target = Some(value),
            "source" | "src" => mount.source = Some(value),
            "id" => mount.id = Some(value),
            "env" => mount.env = Some(value),
            "size" => {
                let good = value::is_size(&value.value);
                self.number(key, value, good, "a size such as `64m`");
            }
            "mode" => {
                let good = u32::from_str_radix(&value.value, 8).is_ok();
                self.number(key, value, good, "an octal mode such as `0755`");
            }
            "uid" | "gid" => {
                let good = value.value.parse::<u32>().is_ok();
                self.number(key, value, good, "a number");
            }
            _ => self.unknown(key, key_span),
        }
    }

    /// grammar: mount_owner
    fn number(&mut self, key: &str, value: Word, good: bool, expected: &str) {
        if !good && !value.value.contains('$') {
            let message = format!("invalid value `{}` for `{key}`", value.value);
            return self.error(value.span, message, &format!("expected {expected}"), None);
        }
        match key {
            "size" => self.mount.size = Some(value),
            "mode" => self.mount.mode = Some(value),
            "uid" => self.mount.uid = Some(value),
            _ => self.mount.gid = Some(value),
        }
    }

    fn flag(&mut self, value: Option<Word>, whole: Span) -> Option<Spanned<bool>> {
        let Some(value) = value else { return Some(Spanned::new(true, whole)) };
        let parsed = value::bool(&value.value);
        if parsed.is_none() {
            let message = format!("invalid value `{}` for a boolean option", value.value);
            self.error(value.span, message, "expected `true` or `false`", None);
        }
        parsed.map(|parsed| Spanned::new(parsed, value.span))
    }

    fn kind(&mut self, value: Word) {
        if value.value.contains('$') {
            self.mount.kind_variable = Some(value);
            return;
        }
        match MountType::from_name(&value.value) {
            Some(kind) => {
                self.mount.kind = kind;
                self.mount.kind_variable = None;
            }
            None => {
                let names = MountType::ALL.map(MountType::name);
                let message = format!("unsupported mount type `{}`", value.value);
                let help = choice(&value.value, &names);
                self.error(value.span, message, "unknown type", Some(help));
            }
        }
    }

    fn sharing(&mut self, value: Word) {
        match Sharing::from_name(&value.value) {
            Some(sharing) => self.mount.sharing = Some(Spanned::new(sharing, value.span)),
            None => {
                let names = Sharing::ALL.map(Sharing::name);
                let message = format!("unsupported sharing value `{}`", value.value);
                let help = choice(&value.value, &names);
                self.error(value.span, message, "not a valid value", Some(help));
            }
        }
    }

    fn unknown(&mut self, key: &str, span: Span) {
        let message = format!("unexpected key `{key}` in `--mount`");
        let help = choice(key, &KEYS);
        self.error(span, message, "unknown key", Some(help));
    }

    fn error(&mut self, span: Span, message: String, label: &str, help: Option<String>) {
        self.good = false;
        self.reader.diagnostics.push(
            Diagnostic::error(codes::BAD_MOUNT, span, message).label(span, label).maybe_help(help),
        );
    }

    /// Checks the options against each other and against the type.
    fn check(&mut self) {
        if self.mount.kind_variable.is_some() {
            return;
        }
        use MountType::{Bind, Cache, Secret, Ssh, Tmpfs};
        let kind = self.mount.kind;
        let mount = &self.mount;
        let keys = [
            ("mode", mount.mode.as_ref().map(|word| word.span), [Cache, Secret, Ssh].as_slice()),
            ("uid", mount.uid.as_ref().map(|word| word.span), &[Cache, Secret, Ssh]),
            ("gid", mount.gid.as_ref().map(|word| word.span), &[Cache, Secret, Ssh]),
            ("sharing", mount.sharing.map(|sharing| sharing.span), &[Cache]),
            ("size", mount.size.as_ref().map(|word| word.span), &[Tmpfs]),
            ("env", mount.env.as_ref().map(|word| word.span), &[Secret]),
            ("source", mount.source.as_ref().map(|word| word.span), &[Bind, Cache, Tmpfs, Secret]),
            ("required", mount.required.map(|flag| flag.span), &[Secret, Ssh]),
            ("from", mount.from.as_ref().map(|word| word.span), &[Bind, Cache, Tmpfs, Ssh]),
        ];
        for (key, span, kinds) in keys {
            if let Some(span) = span.filter(|_| !kinds.contains(&kind)) {
                let message = format!("unexpected key `{key}` for mount type `{}`", kind.name());
                let fitting: Vec<String> =
                    kinds.iter().map(|kind| format!("`{}`", kind.name())).collect();
                let help = format!("`{key}` is supported by {}", fitting.join(", "));
                self.error(span, message, "not supported by this type", Some(help));
            }
        }
        match kind {
            Bind | Cache | Tmpfs => self.check_target(),
            Secret => self.check_secret(),
            Ssh => {}
        }
    }

    fn check_target(&mut self) {
        let name = self.mount.kind.name();
        let target = self.mount.target.as_ref().map(|word| (word.value.as_str(), word.span));
        match target {
            Some(("/", span)) => {
                let message = format!("the target of a {name} mount cannot be `/`");
                self.error(span, message, "not allowed", None);
            }
            Some((path, _)) if !path.is_empty() => {}
            Some(_) | None if self.good => {
                let message = format!("a {name} mount needs a target");
                let help = "add `target=/path`".to_owned();
                self.error(self.span, message, "`target` is missing", Some(help));
            }
            Some(_) | None => {}
        }
    }

    fn check_secret(&mut self) {
        let mount = &self.mount;
        let named = mount.id.is_some() || mount.source.is_some() || mount.target.is_some();
        if let (Some(source), Some(_)) = (&mount.source, &mount.id) {
            let span = source.span;
            let message = "a secret mount cannot have both `source` and `id`".to_owned();
            self.error(span, message, "means the same as `id`", None);
        } else if !named && self.good {
            let message = "a secret mount needs `id` or `target`".to_owned();
            let help = "add `id=name`, the name given with `--secret id=name`".to_owned();
            self.error(self.span, message, "`id` is missing", Some(help));
        }
    }
}

fn choice(word: &str, names: &[&str]) -> String {
    match nearest(word, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("expected one of {}", names.join(", ")),
    }
}
