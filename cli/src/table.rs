//! Text in columns, as kubectl prints it: titles in capitals, three spaces between, no line longer than it must be.

/// Returns the lines of a table, its titles first.
pub fn lines<const N: usize>(titles: [&str; N], rows: &[[String; N]]) -> String {
    let titles = titles.map(str::to_owned);
    let all = || std::iter::once(&titles).chain(rows);
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    };
    all().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_in_characters() {
        let rows = [["ä€".to_owned(), "x".to_owned()], ["long".to_owned(), String::new()]];
        assert_eq!(lines(["A", "B"], &rows), "A      B\nä€     x\nlong\n");
    }
}
