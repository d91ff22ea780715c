//! Hostile text → one printable line.

/// Makes control characters, line breaks and what reorders text visible, and cuts to `max` characters.
pub fn printable(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(4 * max));
    for (count, c) in text.chars().enumerate() {
        if count == max {
            out.push('…');
            break;
        }
        push(&mut out, c);
    }
    out
}

fn push(out: &mut String, c: char) {
    if c.is_control() || reorders(c) { out.extend(c.escape_default()) } else { out.push(c) }
}

/// Characters that are not seen but change what is seen: bidirectional controls, zero-width ones, line separators, tags.
fn reorders(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// `1 cell`, `2 cells`.
pub fn count(number: usize, word: &str) -> String {
    format!("{} {word}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// `72000000` → `72,000,000`.
pub fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// At most `max` of many names, and how many more.
pub fn names<'a>(names: impl ExactSizeIterator<Item = &'a str>, max: usize) -> String {
    let all = names.len();
    let mut text = names.take(max).collect::<Vec<_>>().join(", ");
    if all > max {
        text += &format!(" and {} more", thousands(all - max));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_made_visible() {
        assert_eq!(printable("a\u{1b}[31m\nb\u{202e}c\u{7f}", 80), "a\\u{1b}[31m\\nb\\u{202e}c\\u{7f}");
        assert_eq!(printable("é ok", 80), "é ok");
        assert_eq!(printable("abcdef", 3), "abc…");
    }

    #[test]
    fn numbers_and_lists_are_readable() {
        assert_eq!(thousands(72_000_000), "72,000,000");
        assert_eq!(thousands(999), "999");
        assert_eq!(count(1, "cell"), "1 cell");
        assert_eq!(names(["a", "b", "c"].into_iter(), 2), "a, b and 1 more");
    }
}
