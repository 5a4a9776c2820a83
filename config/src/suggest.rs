//! "Did you mean": the known word nearest to a mistyped one.

/// The candidate nearest to `word`, if it is near enough to be meant: at most one edit for every
/// three letters, counting a swap of neighbours as one edit.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A word longer than any key is not a misspelt key; the bound also keeps hostile files cheap.
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    // `-` and `_`, upper and lower case are mixed up most, and change no meaning.
    let normal = |text: &str| text.to_lowercase().replace('-', "_");
    let word = normal(word);
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &normal(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap neighbours) from `a` to `b`: optimal string alignment, three
/// rows of the table at a time.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (row, from) in a.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, &to) in b.iter().enumerate() {
            let replace = last[column] + usize::from(from != to);
            let mut best = replace.min(last[column + 1] + 1).min(current[column] + 1);
            if column > 0 && previous == Some(to) && b[column - 1] == from {
                best = best.min(before_last[column - 1] + 1);
            }
            current.push(best);
        }
        previous = Some(from);
        before_last = std::mem::replace(&mut last, current);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, edits) in [
            ("", "", 0),
            ("", "rx", 2),
            ("rings", "rings", 0),
            ("ring", "rings", 1),
            ("rigns", "rings", 1),
            ("kitten", "sitting", 3),
            ("frame_sise", "frame_size", 1),
        ] {
            assert_eq!(distance(a, b), edits, "{a} → {b}");
            assert_eq!(distance(b, a), edits, "{b} → {a}");
        }
    }

    #[test]
    fn near_words_only() {
        let known = ["rx", "tx", "fill", "completion", "frame_size"];
        assert_eq!(nearest("frame-size", known), Some("frame_size"));
        assert_eq!(nearest("Fill", known), Some("fill"));
        assert_eq!(nearest("compeltion", known), Some("completion"));
        assert_eq!(nearest("memory", known), None);
        assert_eq!(nearest(&"x".repeat(10_000), known), None);
    }
}
