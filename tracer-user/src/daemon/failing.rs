//! What is said of looks at the socket table that fail: a reason once, not every few seconds.

/// Why looks fail now, if they do.
#[derive(Debug, Default)]
pub struct Failing {
    reason: Option<String>,
}

impl Failing {
    /// One failed. Whether that is news: the one before worked, or failed for another reason.
    pub fn failed(&mut self, reason: &str) -> bool {
        let news = self.reason.as_deref() != Some(reason);
        if news {
            self.reason = Some(reason.to_owned());
        }
        news
    }

    /// One worked. Whether that is news.
    pub fn worked(&mut self) -> bool {
        self.reason.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_once_and_again_after_another_or_after_a_look_that_worked() {
        let mut failing = Failing::default();
        assert!(!failing.worked());
        assert_eq!(["a", "a", "b", "b", "a"].map(|reason| failing.failed(reason)), [true, false, true, false, true]);
        assert!(failing.worked());
        assert!(!failing.worked());
        assert!(failing.failed("a"));
    }
}
