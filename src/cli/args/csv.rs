//! Comma-separated fields, as in docker's options (RFC 4180, section 2): `type=image,"name=a,b"`.

/// Splits a line into fields. A quoted field may contain commas, and quotes if they are doubled.
///
/// # Errors
/// If a quote is not closed, or followed by text.
pub(crate) fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut chars = text.chars().peekable();
    loop {
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next() {
                    Some('"') if chars.next_if_eq(&'"').is_some() => field.push('"'),
                    Some('"') => break,
                    Some(other) => field.push(other),
                    None => return Err(format!("`{text}` has an unclosed quote")),
                }
            }
            if chars.peek().is_some_and(|next| *next != ',') {
                return Err(format!("`{text}` has text after a closing quote"));
            }
        }
        while let Some(next) = chars.next_if(|next| *next != ',') {
            field.push(next);
        }
        fields.push(std::mem::take(&mut field));
        if chars.next().is_none() {
            return Ok(fields);
        }
    }
}

/// Joins fields to a line that [`fields`] splits again.
pub(crate) fn line<S: AsRef<str>>(fields: &[S]) -> String {
    let quoted = fields.iter().map(|field| {
        let field = field.as_ref();
        if field.contains(['"', ',']) {
            return format!("\"{}\"", field.replace('"', "\"\""));
        }
        field.to_owned()
    });
    quoted.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::{fields, line};

    #[test]
    fn joined_fields_are_split_again() {
        for want in [&["a=b"][..], &["type=image", "name=a,b", ""], &["a\"b", "c"]] {
            assert_eq!(fields(&line(want)).unwrap(), want);
        }
    }

    #[test]
    fn fields_may_be_quoted() {
        for (text, want) in [
            ("a=b", &["a=b"][..]),
            ("a,b,", &["a", "b", ""]),
            (r#"type=image,"name=a,b",push=true"#, &["type=image", "name=a,b", "push=true"]),
            (r#""a""b",c"#, &["a\"b", "c"]),
            (r#"a="b""#, &["a=\"b\""]),
        ] {
            assert_eq!(fields(text).unwrap(), want, "{text}");
        }
        assert!(fields(r#""a"#).unwrap_err().contains("unclosed quote"));
        assert!(fields(r#""a"b"#).unwrap_err().contains("after a closing quote"));
    }
}
