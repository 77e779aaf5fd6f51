//! The difference of two small texts, line by line.

/// Most lines of either text that are compared; above it both are shown whole.
const MAX_LINES: usize = 2000;

/// Lines that go (`-`) and come (`+`), in order; lines that stay are left out.
pub(super) fn lines(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let mut text = String::new();
    let mut show = |sign: char, line: &str| {
        text.push_str("    ");
        text.push(sign);
        text.push_str(line);
        text.push('\n');
    };
    if old.len() > MAX_LINES || new.len() > MAX_LINES {
        old.iter().for_each(|line| show('-', line));
        new.iter().for_each(|line| show('+', line));
        return text;
    }
    // common[i][j]: length of the longest common subsequence of old[i..] and new[j..].
    let mut common = vec![vec![0_u16; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] =
                if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if i < old.len() && (j == new.len() || common[i + 1][j] >= common[i][j + 1]) {
            show('-', old[i]);
            i += 1;
        } else {
            show('+', new[j]);
            j += 1;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_goes_and_what_comes() {
        assert_eq!(lines("a\nb\nc\n", "a\nx\nc\nd\n"), "    -b\n    +x\n    +d\n");
        assert_eq!(lines("a\n", "a\n"), "");
        assert_eq!(lines("", "a\n"), "    +a\n");
        assert_eq!(lines("a\n", ""), "    -a\n");
        let long = "x\n".repeat(MAX_LINES + 1);
        assert_eq!(lines(&long, "y\n").lines().count(), MAX_LINES + 2);
    }
}
