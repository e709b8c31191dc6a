//! Aligned tables of text.

/// How a cell is coloured on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tint {
    /// As it is.
    #[default]
    Plain,
    /// All is well.
    Good,
    /// Worth a look.
    Warn,
    /// Broken.
    Bad,
}

/// A table with a heading; columns are as wide as their widest cell.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<(String, Tint)>>,
}

#[derive(Debug, Clone)]
struct Column {
    title: &'static str,
    right: bool,
}

impl Table {
    /// A table with these columns; a title that starts with `>` stands to the right.
    pub fn new(titles: &[&'static str]) -> Self {
        let column = |title: &&'static str| Column {
            title: title.strip_prefix('>').unwrap_or(title),
            right: title.starts_with('>'),
        };
        Self { columns: titles.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row; an empty cell shows as `-`, and control characters do not get through.
    pub fn row<const N: usize>(&mut self, cells: [(String, Tint); N]) {
        let clean = |(text, tint): (String, Tint)| {
            let text = super::output::printable(&text).replace('\n', " ");
            (if text.is_empty() { "-".to_owned() } else { text }, tint)
        };
        self.rows.push(cells.into_iter().map(clean).collect());
    }

    /// Adds a row without colours.
    pub fn plain<const N: usize>(&mut self, cells: [String; N]) {
        self.row(cells.map(|cell| (cell, Tint::Plain)));
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, without a line break at its end.
    pub fn render(&self, colour: bool) -> String {
        let width_of = |(at, column): (usize, &Column)| {
            let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|(text, _)| width(text));
            cells.chain([width(column.title)]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = self.columns.iter().enumerate().map(width_of).collect();
        let heading: Vec<_> = self.columns.iter().map(|c| (c.title.to_owned(), Tint::Plain)).collect();
        let lines = std::iter::once(&heading).chain(&self.rows).map(|row| {
            let cells = row.iter().zip(&self.columns).zip(&widths);
            let line: Vec<String> =
                cells.map(|((cell, column), width)| pad(cell, column.right, *width, colour)).collect();
            line.join("  ").trim_end().to_owned()
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn pad((text, tint): &(String, Tint), right: bool, to: usize, colour: bool) -> String {
    let space = " ".repeat(to.saturating_sub(width(text)));
    let text = match (colour, tint) {
        (false, _) | (true, Tint::Plain) => text.clone(),
        (true, Tint::Good) => format!("\u{1b}[32m{text}\u{1b}[0m"),
        (true, Tint::Warn) => format!("\u{1b}[33m{text}\u{1b}[0m"),
        (true, Tint::Bad) => format!("\u{1b}[31m{text}\u{1b}[0m"),
    };
    if right { format!("{space}{text}") } else { format!("{text}{space}") }
}

/// Columns on the terminal, to a first approximation: wide East Asian letters and emoji take two,
/// combining marks none.
fn width(text: &str) -> usize {
    let of = |c: char| match u32::from(c) {
        0x300..=0x36f | 0x200b..=0x200f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f => 2,
        0xff00..=0xff60 | 0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    };
    text.chars().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_cells_are_marked() {
        let mut table = Table::new(&["NAME", ">RTT", "STATE"]);
        table.plain(["kitchen".into(), "120 µs".into(), "self".into()]);
        table.plain(["居間".into(), String::new(), "dead\nor\u{1b} not".into()]);
        assert_eq!(
            table.render(false),
            "NAME        RTT  STATE\nkitchen  120 µs  self\n居間          -  dead or\u{fffd} not"
        );
    }

    #[test]
    fn colours_do_not_move_columns() {
        let mut table = Table::new(&["A", "B"]);
        table.row([("x".into(), Tint::Bad), ("y".into(), Tint::Plain)]);
        assert_eq!(table.render(true), "A  B\n\u{1b}[31mx\u{1b}[0m  y");
        assert_eq!(table.render(false), "A  B\nx  y");
    }
}
