//! Lines of JSON: one object, one line. What the daemon writes into its streams.

use serde::Serialize;

/// Appends an object. What cannot be written as JSON leaves no half a line behind; says whether it was written.
pub fn push_line(line: &impl Serialize, text: &mut Vec<u8>) -> bool {
    let before = text.len();
    match serde_json::to_writer(&mut *text, line) {
        Ok(()) => {
            text.push(b'\n');
            true
        }
        Err(error) => {
            text.truncate(before);
            tracing::error!("a line could not be written as JSON: {error}");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let mut text = Vec::new();
        assert!(push_line(&[1, 2], &mut text));
        // JSON's keys are texts.
        assert!(!push_line(&BTreeMap::from([([1], 2)]), &mut text));
        assert!(push_line(&"a\nb", &mut text));
        assert_eq!(text, b"[1,2]\n\"a\\nb\"\n");
    }
}
