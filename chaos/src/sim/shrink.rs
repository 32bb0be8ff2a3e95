//! Makes a schedule that breaks a law as short as it can be, by leaving lines out and trying again (delta debugging:
//! Zeller and Hildebrandt 2002).

/// Tries that one search may cost.
const PATIENCE: u32 = 400;

/// A schedule that still breaks a law, and from which no line can be left out, as far as a bounded search shows. The first
/// line, which makes the cluster, stays.
pub fn shrink(schedule: &str, mut breaks: impl FnMut(&str) -> bool) -> String {
    let lines: Vec<&str> = schedule.lines().collect();
    let Some((first, rest)) = lines.split_first() else { return schedule.to_owned() };
    let text = |lines: &[&str]| std::iter::once(first).chain(lines).copied().collect::<Vec<_>>().join("\n");
    let mut left: Vec<&str> = rest.to_vec();
    let mut tries = 0;
    let mut piece = left.len().div_ceil(2);
    while piece > 0 {
        let mut at = 0;
        while at < left.len() && tries < PATIENCE {
            let mut fewer = left.clone();
            fewer.drain(at..(at + piece).min(left.len()));
            tries += 1;
            if breaks(&text(&fewer)) {
                left = fewer;
            } else {
                at += piece;
            }
        }
        piece = if piece == 1 { 0 } else { piece.div_ceil(2) };
    }
    text(&left)
}

#[cfg(test)]
mod tests {
    use super::shrink;

    #[test]
    fn what_does_not_matter_is_left_out() {
        let schedule = "cluster\na\nb\nc\nd\ne\nf\ng\nh\ni";
        let breaks = |text: &str| text.contains("\nc") && text.contains("\ng");
        assert_eq!(shrink(schedule, breaks), "cluster\nc\ng");
        assert_eq!(shrink(schedule, |_| false), schedule);
        assert_eq!(shrink("", |_| true), "");
    }
}
