//! How many tests passed, as test runners print it.

/// Figures of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tests that passed.
    pub passed: u32,
    /// Tests that failed.
    pub failed: u32,
    /// Tests that were not run.
    pub ignored: u32,
}

impl Counts {
    /// Adds what a runner's summary line says; any other line says nothing.
    pub fn add_line(&mut self, line: &str) {
        let line = line.trim_start();
        // The incident lab: "7 of 9 scenarios right".
        if let Some(of) = line.strip_suffix(" scenarios right") {
            let numbers: Vec<u32> = of.split(" of ").filter_map(|number| number.parse().ok()).collect();
            if let [right, all] = numbers[..] {
                self.passed += right;
                self.failed += all.saturating_sub(right);
            }
            return;
        }
        // libtest: "test result: ok. 29 passed; 0 failed; 0 ignored; ...".
        // nextest: "Summary [   0.083s] 29 tests run: 27 passed (1 slow), 2 failed, 0 skipped".
        if !line.starts_with("test result: ") && !line.starts_with("Summary [") {
            return;
        }
        let words: Vec<&str> = line.split(|c: char| c.is_whitespace() || ",;.:()".contains(c)).collect();
        for pair in words.windows(2) {
            let [number, what] = pair else { continue };
            let Ok(number) = number.parse::<u32>() else { continue };
            match *what {
                "passed" => self.passed += number,
                "failed" | "timed" => self.failed += number,
                "ignored" | "skipped" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// A step without tests counts as one; a step that failed has at least one failure.
    pub fn agree_with(&mut self, step_passed: bool) {
        if !step_passed {
            self.failed = self.failed.max(1);
        } else if self.passed == 0 {
            self.passed = 1;
        }
    }

    /// Adds another step's.
    pub fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lines: &[&str], passed: u32, failed: u32, ignored: u32) {
        let mut counts = Counts::default();
        lines.iter().for_each(|line| counts.add_line(line));
        assert_eq!(counts, Counts { passed, failed, ignored }, "{lines:?}");
    }

    #[test]
    fn the_incident_lab_counts_scenarios() {
        check(&["scenario   expected", "7 of 9 scenarios right"], 7, 2, 0);
    }

    #[test]
    fn libtest_prints_one_line_a_binary() {
        let ok = "test result: ok. 29 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.08s";
        let bad = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 5 filtered out; finished in 1.20s";
        check(&[ok, "running 29 tests", bad], 32, 2, 1);
    }

    #[test]
    fn nextest_prints_one_line_in_all() {
        check(&["     Summary [   0.083s] 29 tests run: 29 passed, 0 skipped"], 29, 0, 0);
        check(
            &["     Summary [   1.083s] 30 tests run: 27 passed (1 slow), 2 failed, 1 timed out, 4 skipped"],
            27,
            3,
            4,
        );
    }

    #[test]
    fn what_a_test_prints_is_no_summary() {
        check(&["12 passed, 3 failed", "thread panicked: 3 failed"], 0, 0, 0);
    }

    #[test]
    fn exit_codes_outweigh_figures() {
        let mut broken = Counts { passed: 5, failed: 0, ignored: 0 };
        broken.agree_with(false);
        assert_eq!(broken, Counts { passed: 5, failed: 1, ignored: 0 });
        let mut plain = Counts::default();
        plain.agree_with(true);
        assert_eq!(plain, Counts { passed: 1, failed: 0, ignored: 0 });
    }
}
