//! Comma-separated values, as Go's `encoding/csv` reads and writes them.

/// Returns the fields of one record.
///
/// # Errors
/// A quote is not closed or stands inside a field.
pub(crate) fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut records = records_of(text, ',')?;
    Ok(if records.is_empty() { Vec::new() } else { records.swap_remove(0) })
}

/// Returns the fields of one record with another separator.
///
/// # Errors
/// A quote is not closed or stands inside a field.
pub(crate) fn fields_by(text: &str, separator: char) -> Result<Vec<String>, String> {
    let mut records = records_of(text, separator)?;
    Ok(if records.is_empty() { Vec::new() } else { records.swap_remove(0) })
}

/// Returns all records; empty lines are none.
///
/// # Errors
/// A quote is not closed or stands inside a field.
pub(crate) fn records(text: &str) -> Result<Vec<Vec<String>>, String> {
    records_of(text, ',')
}

fn records_of(text: &str, separator: char) -> Result<Vec<Vec<String>>, String> {
    let mut records = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('\n').or_else(|| rest.strip_prefix("\r\n")) {
            rest = after;
            continue;
        }
        let mut record = Vec::new();
        loop {
            let (field, after) = field(rest, separator)?;
            record.push(field);
            rest = after;
            match rest.strip_prefix(separator) {
                Some(after) => rest = after,
                None => break,
            }
        }
        let after = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix('\n'));
        rest = after.unwrap_or(rest);
        records.push(record);
    }
    Ok(records)
}

/// Reads one field. Returns it and what follows: a separator, a line ending, or nothing.
fn field(text: &str, separator: char) -> Result<(String, &str), String> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find([separator, '\n']).unwrap_or(text.len());
        let (field, rest) = text.split_at_checked(end).unwrap_or((text, ""));
        if field.contains('"') {
            return Err("a quote stands inside of a field".to_owned());
        }
        let (trimmed, ended) = match field.strip_suffix('\r') {
            Some(trimmed) if rest.starts_with('\n') => (trimmed, rest),
            _ => (field, rest),
        };
        return Ok((trimmed.to_owned(), ended));
    };
    let mut field = String::new();
    loop {
        let (part, after) = rest.split_once('"').ok_or("a quote is not closed")?;
        field.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None if after.is_empty() || after.starts_with([separator, '\n', '\r']) => {
                return Ok((field, after));
            }
            None => return Err("text follows the closing quote of a field".to_owned()),
        }
    }
}
