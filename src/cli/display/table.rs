//! Columns of text, as docker's lists have them.

use super::text::shown;

/// Blanks between two columns.
const GAP: usize = 3;

/// Rows of cells, each column as wide as its widest cell; one line each, without blanks at its end.
pub(crate) fn lines(rows: &[Vec<String>]) -> Vec<String> {
    let length = |text: &String| text.chars().count();
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(length).max();
    let widths: Vec<usize> = (0..n_columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| {
            let padding = width + GAP - length(cell).min(*width);
            format!("{cell}{}", " ".repeat(padding))
        });
        cells.collect::<String>().trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// A row out of anything that can be shown. What will not be seen takes no space.
pub(crate) fn row<const N: usize>(cells: [&dyn ToString; N]) -> Vec<String> {
    cells.iter().map(|cell| shown(&cell.to_string(), false).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [row([&"A", &"B"]), row([&"longer…", &1]), row([&"x"])];
        assert_eq!(lines(&rows), ["A         B", "longer…   1", "x"]);
        let rows = [row([&"a\u{202e}\u{1b}[1mb", &"c"]), row([&"xyz", &"d"])];
        assert_eq!(lines(&rows), ["ab    c", "xyz   d"]);
    }
}
