//! Fields between commas, as docker's flags have them (RFC 4180): `type=image,"name=a,b"`.

/// The fields of one line; a quoted field may hold commas, and quotes as two of them.
///
/// # Errors
/// A text that says which quote is wrong.
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
                    None => return Err(format!("`{text}` has a quote that does not end")),
                }
            }
            if chars.peek().is_some_and(|next| *next != ',') {
                return Err(format!("`{text}` goes on after a quote that ends"));
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

#[cfg(test)]
mod tests {
    use super::fields;

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
        assert!(fields(r#""a"#).unwrap_err().contains("does not end"));
        assert!(fields(r#""a"b"#).unwrap_err().contains("goes on"));
    }
}
