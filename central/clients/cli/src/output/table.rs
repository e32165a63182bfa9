//! Lists as kubectl draws them: columns without borders.

use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Row, Table, Width};

use super::{Console, Tone};

/// Spaces between two columns.
const GAP: u16 = 3;

/// One column of a list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// Title, in capitals.
    pub(crate) title: &'static str,
    /// Whether only `-o wide` shows it.
    pub(crate) is_wide: bool,
}

impl Column {
    /// A column that every table shows.
    pub(crate) const fn new(title: &'static str) -> Self {
        Self { title, is_wide: false }
    }

    /// A column that only `-o wide` shows.
    pub(crate) const fn wide(title: &'static str) -> Self {
        Self { title, is_wide: true }
    }
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    /// What it says.
    pub(crate) text: String,
    /// What it means.
    pub(crate) tone: Tone,
}

impl Text {
    /// A cell with a meaning.
    pub(crate) fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }

    fn cell(&self) -> Cell {
        // An empty cell would shift the eye, and `awk`, to the next column.
        let cell = Cell::new(if self.text.is_empty() { "-" } else { &self.text });
        match self.tone {
            Tone::Plain => cell,
            Tone::Good => cell.fg(Color::DarkGreen),
            Tone::Busy => cell.fg(Color::DarkYellow),
            Tone::Bad => cell.fg(Color::DarkRed),
            Tone::Dim => cell.add_attribute(Attribute::Dim),
        }
    }
}

impl<T: Into<String>> From<T> for Text {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// How a table is drawn.
#[derive(Debug, Clone)]
pub(crate) struct Drawing {
    is_wide: bool,
    has_header: bool,
    has_colour: bool,
    /// Columns of the terminal; absent = as wide as it gets.
    width: Option<u16>,
    /// Widths of a table that stands above already.
    fixed: Vec<u16>,
}

impl Drawing {
    /// A table for this console.
    pub(crate) fn new(console: &Console, is_wide: bool, has_header: bool) -> Self {
        // Who asks for everything wants it whole: the terminal may wrap it.
        let width = console.width.filter(|_| !is_wide);
        Self { is_wide, has_header, has_colour: console.colours_results(), width, fixed: Vec::new() }
    }

    /// For rows that continue a table that was drawn before.
    pub(crate) fn continued(mut self, widths: Vec<u16>) -> Self {
        self.has_header = false;
        self.fixed = widths;
        self
    }

    /// The table as text, and the widths of its columns.
    pub(crate) fn draw(&self, columns: &[Column], rows: Vec<Vec<Text>>) -> (String, Vec<u16>) {
        let shown = |index: usize| columns.get(index).is_some_and(|column| self.is_wide || !column.is_wide);
        let mut table = self.empty_table();
        if self.has_header {
            let titles = columns.iter().enumerate().filter(|(index, _)| shown(*index)).map(|(_, column)| column.title);
            let mut header = Row::from(titles.collect::<Vec<_>>());
            header.max_height(1);
            table.set_header(header);
        }
        for row in rows {
            let cells = row.iter().enumerate().filter(|(index, _)| shown(*index)).map(|(_, text)| text.cell());
            let mut row = Row::from(cells.collect::<Vec<_>>());
            row.max_height(1);
            table.add_row(row);
        }
        let widths: Vec<u16> =
            table.column_max_content_widths().iter().zip(pad(&self.fixed)).map(|(&new, old)| new.max(old)).collect();
        self.shape(&mut table, &widths);
        (table.trim_fmt(), widths)
    }

    fn empty_table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(NOTHING).set_truncation_indicator("…");
        if self.has_colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        match self.width {
            Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        table
    }

    /// Names must stay whole to be copied: only later columns give way.
    fn shape(&self, table: &mut Table, widths: &[u16]) {
        let last = widths.len().saturating_sub(1);
        for (index, column) in table.column_iter_mut().enumerate() {
            let gap = if index == last { 0 } else { GAP };
            column.set_padding((0, gap));
            if index == 0 && self.fixed.is_empty() {
                column.set_constraint(ColumnConstraint::ContentWidth);
            } else if !self.fixed.is_empty() {
                let width = widths.get(index).copied().unwrap_or_default().saturating_add(gap);
                column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(width)));
            }
        }
    }
}

/// The widths that are known, then zeros.
fn pad(widths: &[u16]) -> impl Iterator<Item = u16> {
    widths.iter().copied().chain(std::iter::repeat(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [Column::new("NAME"), Column::new("STATUS"), Column::wide("ID")];

    fn drawing(width: Option<u16>, is_wide: bool) -> Drawing {
        Drawing { is_wide, has_header: true, has_colour: false, width, fixed: Vec::new() }
    }

    fn rows() -> Vec<Vec<Text>> {
        vec![
            vec!["desktop-1".into(), Text::new("Ready", Tone::Good), "sbx-1".into()],
            vec!["b".into(), "".into(), "sbx-2".into()],
        ]
    }

    #[test]
    fn a_table_has_no_borders_and_no_trailing_spaces() {
        let (text, _) = drawing(None, false).draw(&COLUMNS, rows());
        assert_eq!(text, "NAME        STATUS\ndesktop-1   Ready\nb           -");
    }

    #[test]
    fn wide_columns_appear_on_demand() {
        let (text, _) = drawing(None, true).draw(&COLUMNS, rows());
        assert_eq!(text.lines().nth(1), Some("desktop-1   Ready    sbx-1"));
    }

    #[test]
    fn a_narrow_terminal_shortens_later_columns_and_never_wraps() {
        let long = vec![vec!["desktop-1".into(), "a very long status indeed".into(), "x".into()]];
        let (text, _) = drawing(Some(24), false).draw(&COLUMNS, long);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 24), "{text}");
        assert!(text.contains("desktop-1") && text.contains('…'), "{text}");
    }

    #[test]
    fn rows_that_continue_a_table_keep_its_columns() {
        let (_, widths) = drawing(None, false).draw(&COLUMNS, rows());
        let more = vec![vec!["c".into(), "Stopped".into(), "x".into()]];
        let (text, widths) = drawing(None, false).continued(widths).draw(&COLUMNS, more);
        assert_eq!(text, "c           Stopped");
        assert_eq!(widths, [9, 7]);
    }
}
