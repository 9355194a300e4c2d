//! How names are written, and which are near each other.

/// `likeThis` of `like_this`.
pub(crate) fn camel_case(written: &str) -> String {
    let mut name = String::with_capacity(written.len());
    let mut upper = false;
    for c in written.chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                name.extend(c.to_uppercase());
                upper = false;
            }
            c => name.push(c),
        }
    }
    name
}

/// Whether two names are so near that one is probably a slip of the other.
pub(crate) fn is_slip(a: &str, b: &str) -> bool {
    distance(a, b) <= if b.len() < 5 { 1 } else { 2 } || is_swap(a, b)
}

/// Whether two neighbouring letters changed places.
fn is_swap(a: &str, b: &str) -> bool {
    let differing: Vec<(char, char)> = a.chars().zip(b.chars()).filter(|(x, y)| x != y).collect();
    a.len() == b.len() && matches!(differing.as_slice(), [(p, q), (r, s)] if p == s && q == r)
}

/// Levenshtein distance, cut short for long names.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(40).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(40).enumerate() {
        let mut previous = i;
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        for (j, y) in b.iter().enumerate() {
            let substituted = previous + usize::from(x != *y);
            previous = row.get(j + 1).copied().unwrap_or(usize::MAX);
            let left = row.get(j).copied().unwrap_or(usize::MAX);
            if let Some(cell) = row.get_mut(j + 1) {
                *cell = substituted.min(previous + 1).min(left + 1);
            }
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}
