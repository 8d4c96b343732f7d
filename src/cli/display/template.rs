//! `--format`: JSON lines, a table, or a template of fields in the syntax of docker
//! (<https://docs.docker.com/engine/cli/formatting/>).

use serde_json::{Map, Value};

use super::table;

/// Fields of a list entry by name.
pub(crate) type Fields = Map<String, Value>;

/// Output format of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListFormat {
    /// One JSON object a line.
    Json,
    /// The table that is shown without `--format`.
    Table,
    /// One line for each entry; with headings, and columns at tabs, if `has_head`.
    Template { parts: Vec<TemplatePart>, has_head: bool },
}

/// Text or a field of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TemplatePart {
    Text(String),
    /// The value of a field: `{{.Name}}`.
    Field(String),
    /// `{{json .Name}}`, or `{{json .}}` for all fields.
    Json(Option<String>),
}

impl ListFormat {
    /// Parses the value of `--format`; `fields` are the names of the fields.
    ///
    /// # Errors
    /// If the template has no fields, unknown ones, or unsupported actions.
    pub(crate) fn parse(text: &str, fields: &[&str]) -> Result<Self, String> {
        match text.trim() {
            "json" => return Ok(Self::Json),
            "table" => return Ok(Self::Table),
            _ => {}
        }
        let (text, has_head) = match text.strip_prefix("table ") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        Ok(Self::Template { parts: parts(text, fields)?, has_head })
    }
}

fn parts(text: &str, fields: &[&str]) -> Result<Vec<TemplatePart>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((inner, behind)) = after.split_once("}}") else {
            return Err(format!("--format `{text}` has `{{{{` without `}}}}`"));
        };
        parts.push(TemplatePart::Text(unescaped(before)));
        parts.push(field(inner, fields)?);
        rest = behind;
    }
    parts.push(TemplatePart::Text(unescaped(rest)));
    parts.retain(|part| *part != TemplatePart::Text(String::new()));
    if parts.iter().all(|part| matches!(part, TemplatePart::Text(_))) {
        return Err(format!(
            "--format `{text}` names no field: use json, table, or a template such as `{{{{.{}}}}}`",
            fields.first().copied().unwrap_or_default()
        ));
    }
    Ok(parts)
}

fn field(inner: &str, fields: &[&str]) -> Result<TemplatePart, String> {
    let words: Vec<&str> = inner.split_whitespace().collect();
    let (word, is_json) = match words.as_slice() {
        ["json", "."] => return Ok(TemplatePart::Json(None)),
        ["json", word] => (*word, true),
        [word] => (*word, false),
        _ => ("", false),
    };
    let Some(name) = word.strip_prefix('.') else {
        return Err(format!(
            "--format does not support `{{{{{inner}}}}}`: use {{{{.NAME}}}} or {{{{json .NAME}}}}"
        ));
    };
    if !fields.contains(&name) {
        let all = fields.join(", ");
        return Err(format!("--format has no field .{name}: use one of {all}"));
    }
    let name = name.to_owned();
    Ok(if is_json { TemplatePart::Json(Some(name)) } else { TemplatePart::Field(name) })
}

/// Replaces `\t` and `\n`, which shells do not interpret, by a tab and a line end.
fn unescaped(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// Returns the lines of a template for all entries.
pub(crate) fn lines(parts: &[TemplatePart], has_head: bool, entries: &[Fields]) -> Vec<String> {
    let texts = entries.iter().map(|fields| parts.iter().map(|part| part.text(fields)).collect());
    if !has_head {
        return texts.collect();
    }
    let head: String = parts.iter().map(TemplatePart::heading).collect();
    let row = |line: String| line.split('\t').map(str::to_owned).collect::<Vec<String>>();
    table::lines(&[head].into_iter().chain(texts).map(row).collect::<Vec<_>>())
}

impl TemplatePart {
    fn text(&self, fields: &Fields) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Field(name) => match fields.get(name) {
                Some(Value::String(text)) => text.clone(),
                None | Some(Value::Null) => String::new(),
                Some(value) => value.to_string(),
            },
            Self::Json(None) => Value::Object(fields.clone()).to_string(),
            Self::Json(Some(name)) => fields.get(name).unwrap_or(&Value::Null).to_string(),
        }
    }

    /// Returns the heading of a field as in docker: `CREATED AT` for `CreatedAt`.
    fn heading(&self) -> String {
        let (Self::Field(name) | Self::Json(Some(name))) = self else {
            return if let Self::Text(text) = self { text.clone() } else { String::new() };
        };
        match name.as_str() {
            "ID" => return "IMAGE ID".to_owned(),
            "CreatedSince" => return "CREATED".to_owned(),
            _ => {}
        }
        let mut heading = String::with_capacity(name.len() + 4);
        for c in name.chars() {
            if c.is_uppercase() && !heading.is_empty() {
                heading.push(' ');
            }
            heading.push(c.to_ascii_uppercase());
        }
        heading
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FIELDS: [&str; 3] = ["ID", "Tag", "CreatedAt"];

    fn shown(format: &str) -> Vec<String> {
        let ListFormat::Template { parts, has_head } = ListFormat::parse(format, &FIELDS).unwrap()
        else {
            panic!("{format} is not a template");
        };
        let entry = |id: &str| {
            let fields = json!({ "ID": id, "Tag": "1", "CreatedAt": null });
            fields.as_object().unwrap().clone()
        };
        lines(&parts, has_head, &[entry("a"), entry("bcd")])
    }

    #[test]
    fn templates_are_filled_in() {
        assert_eq!(shown("{{.ID}}:{{ .Tag }}"), ["a:1", "bcd:1"]);
        assert_eq!(shown("{{.CreatedAt}}|{{json .CreatedAt}}"), ["|null", "|null"]);
        assert_eq!(shown(r"{{.ID}}\t{{json .Tag}}"), ["a\t\"1\"", "bcd\t\"1\""]);
        assert_eq!(shown(r"table {{.ID}}\t{{.CreatedAt}}"), ["IMAGE ID   CREATED AT", "a", "bcd"]);
        assert_eq!(shown("{{json .}}")[0], r#"{"CreatedAt":null,"ID":"a","Tag":"1"}"#);
        assert_eq!(ListFormat::parse("json", &FIELDS), Ok(ListFormat::Json));
        assert_eq!(ListFormat::parse("table", &FIELDS), Ok(ListFormat::Table));
    }

    #[test]
    fn other_templates_are_refused_with_a_hint() {
        for (text, want) in [
            ("{{.Id}}", "--format has no field .Id: use one of ID, Tag, CreatedAt"),
            ("{{.ID", "--format `{{.ID` has `{{` without `}}`"),
            (
                "pretty",
                "--format `pretty` names no field: use json, table, or a template such as `{{.ID}}`",
            ),
            (
                "{{range .}}",
                "--format does not support `{{range .}}`: use {{.NAME}} or {{json .NAME}}",
            ),
        ] {
            assert_eq!(ListFormat::parse(text, &FIELDS), Err(want.to_owned()));
        }
    }
}
