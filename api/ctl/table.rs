//! Tables with Patroni's borders: the cluster's name in the top line, a rule
//! between rows only where a cell has several lines. Pure text, no terminal codes.

/// How a column's cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// At the left border.
    Left,
    /// At the right border.
    Right,
}

/// Draws a table; `title` is laid over the top line.
#[must_use]
pub fn draw(title: &str, columns: &[(String, Align)], rows: &[Vec<String>]) -> String {
    let widths = widths(columns, rows);
    let rule = widths.iter().fold(String::from("+"), |line, width| line + &"-".repeat(width + 2) + "+");
    let names: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
    let several_lines = rows.iter().flatten().any(|cell| cell.contains('\n'));

    let mut text = vec![titled(&rule, title)];
    draw_row(&names, columns, &widths, &mut text);
    text.push(rule.clone());
    for (index, row) in rows.iter().enumerate() {
        if several_lines && index > 0 {
            text.push(rule.clone());
        }
        draw_row(row, columns, &widths, &mut text);
    }
    text.push(rule);
    text.join("\n")
}

fn widths(columns: &[(String, Align)], rows: &[Vec<String>]) -> Vec<usize> {
    let widest = |cell: &str| cell.split('\n').map(|line| line.chars().count()).max().unwrap_or(0);
    columns
        .iter()
        .enumerate()
        .map(|(index, (name, _))| {
            let cells = rows.iter().filter_map(|row| row.get(index)).map(|cell| widest(cell));
            cells.max().unwrap_or(0).max(widest(name))
        })
        .collect()
}

fn titled(rule: &str, title: &str) -> String {
    let room = rule.len().saturating_sub(2);
    let title: String = title.chars().take(room).collect();
    let rest = rule.get(1 + title.chars().count()..).unwrap_or_default();
    format!("+{title}{rest}")
}

fn draw_row(row: &[String], columns: &[(String, Align)], widths: &[usize], text: &mut Vec<String>) {
    let cells: Vec<Vec<&str>> = row.iter().map(|cell| cell.split('\n').collect()).collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or(1);
    for line in 0..height {
        let mut out = String::from("|");
        for (index, ((_, align), width)) in columns.iter().zip(widths).enumerate() {
            let cell = cells.get(index).and_then(|lines| lines.get(line)).copied().unwrap_or_default();
            let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
            match align {
                Align::Left => out.extend([" ", cell, &gap, " |"]),
                Align::Right => out.extend([" ", &gap, cell, " |"]),
            }
        }
        text.push(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &[&str]) -> Vec<(String, Align)> {
        names.iter().map(|name| ((*name).to_owned(), Align::Left)).collect()
    }

    #[test]
    fn an_empty_table_keeps_its_head_and_cuts_a_long_title() {
        let drawn = draw(" Cluster: a very long name ", &columns(&["TL", "LSN"]), &[]);
        assert_eq!(drawn, "+ Cluster: +\n| TL | LSN |\n+----+-----+\n+----+-----+");
    }

    #[test]
    fn rules_between_rows_only_where_a_cell_has_lines() {
        let rows = [vec!["a".to_owned(), "x\nyy".to_owned()], vec!["b".to_owned(), String::new()]];
        let drawn = draw("", &columns(&["M", "T"]), &rows);
        assert_eq!(
            drawn,
            "+---+----+\n| M | T  |\n+---+----+\n| a | x  |\n|   | yy |\n+---+----+\n| b |    |\n+---+----+"
        );
    }
}
