//! Tables of text, in the style of docker's lists.

use super::text::shown;

/// Number of blanks between two columns.
const GAP: usize = 3;

/// Returns one line for each row. Columns are as wide as their widest cell; lines have no trailing
/// blanks.
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

/// Returns a row of cells, without control characters.
pub(crate) fn row<const N: usize>(cells: [&dyn ToString; N]) -> Vec<String> {
    cells.iter().map(|cell| shown(&cell.to_string(), false).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [row([&"A", &"B"]), row([&"longer…", &1]), row([&"x"])];
        assert_eq!(lines(&rows), ["A         B", "longer…   1", "x"]);
        let rows = [row([&"a\u{202e}\u{1b}[1mb", &"c"]), row([&"xyz", &"d"])];
        assert_eq!(lines(&rows), ["ab    c", "xyz   d"]);
    }
}
