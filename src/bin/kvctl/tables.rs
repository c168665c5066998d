//! Aligned tables: every column as wide as its widest cell, two spaces between them, nothing behind the last.

/// A table being filled.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these titles.
    pub fn new(titles: &[&str]) -> Self {
        Self { rows: vec![titles.iter().map(|title| (*title).to_owned()).collect()] }
    }

    /// Adds a row, of as many cells as there are titles.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.rows[0].len(), "a row has a cell for each title: {cells:?}");
        self.rows.push(cells);
    }

    /// The lines of the table.
    pub fn render(&self) -> String {
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_at_their_text() {
        let mut table = Table::new(&["NODE", "ADDRESS"]);
        table.row(vec!["1".into(), "a:1".into()]);
        table.row(vec!["10000".into(), "bb:22".into()]);
        table.row(vec!["2".into(), String::new()]);
        assert_eq!(table.render(), "NODE   ADDRESS\n1      a:1\n10000  bb:22\n2\n");
    }
}
