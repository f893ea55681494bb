//! Text in columns.

use crate::status::Paint;

/// One column: its title, and to which side its cells lean.
pub type Column = (&'static str, Lean);

/// To which side cells lean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lean {
    /// Texts.
    Left,
    /// Figures.
    Right,
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    mood: Mood,
}

/// What a cell's colour hints at; its text says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// No colour.
    Plain,
    /// All is well.
    Good,
    /// Something is wrong.
    Bad,
}

impl Cell {
    /// Returns a cell with a hint.
    pub fn new(text: impl Into<String>, mood: Mood) -> Self {
        Self { text: text.into(), mood }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Mood::Plain)
    }
}

/// Returns the lines of a table, its titles first, two spaces before each and between columns.
pub fn lines<const N: usize>(columns: &[Column; N], rows: &[[Cell; N]], paint: Paint) -> Vec<String> {
    let titles: [Cell; N] = columns.map(|(title, _)| title.into());
    let all = || std::iter::once(&titles).chain(rows);
    let width = |column: usize| all().map(|row| row[column].text.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[Cell; N]| {
        let mut line = String::new();
        for ((cell, width), (_, lean)) in row.iter().zip(&widths).zip(columns) {
            let padding = " ".repeat(width - cell.text.chars().count());
            let text = match cell.mood {
                Mood::Plain => cell.text.clone(),
                Mood::Good => paint.good(&cell.text),
                Mood::Bad => paint.bad(&cell.text),
            };
            line.push_str("  ");
            match lean {
                Lean::Left => line.extend([text, padding]),
                Lean::Right => line.extend([padding, text]),
            }
        }
        line.trim_end().to_string()
    };
    all().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_in_characters() {
        let columns = [("A", Lean::Left), ("COUNT", Lean::Right), ("C", Lean::Left)];
        let rows = [["ä€".into(), "1".into(), "x".into()], ["b".into(), "123456".into(), "".into()]];
        assert_eq!(lines(&columns, &rows, Paint::plain()), ["  A    COUNT  C", "  ä€       1  x", "  b   123456"]);
    }
}
