//! What is told: the targets with their verdicts on the terminal, everything in docs/benchmarks.md and .json.
//!
//! The page's generated part lies between two marks; what is outside them is written by people and stays.

mod machine;
mod tables;
mod targets;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::figures::Report;
use machine::Machine;
use targets::Verdict;

const BEGIN: &str = "<!-- begin: written by `cargo xtask bench`, do not edit by hand -->";
const END: &str = "<!-- end -->";

/// Prints the tables, and writes what is asked for.
pub fn publish(report: &Report, docs: bool, file: Option<&Path>) -> Result<()> {
    let machine = Machine::look()?;
    let verdicts = targets::judge(report);
    let text = format!("{}\n{}{}", machine.markdown(), targets::markdown(&verdicts), tables::markdown(report));
    print!("{text}");
    let json = format!("{:#}\n", as_json(report, &machine, &verdicts));
    if let Some(path) = file {
        fs::write(path, &json).with_context(|| format!("write {}", path.display()))?;
    }
    if docs {
        let page = docs_file("benchmarks.md");
        let before = fs::read_to_string(&page).with_context(|| format!("read {}", page.display()))?;
        fs::write(&page, between_marks(&before, &text)?).with_context(|| format!("write {}", page.display()))?;
        fs::write(docs_file("benchmarks.json"), json).context("write docs/benchmarks.json")?;
    }
    Ok(())
}

fn docs_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

fn between_marks(page: &str, text: &str) -> Result<String> {
    let (before, rest) = page.split_once(BEGIN).with_context(|| format!("the page has no line {BEGIN}"))?;
    let (_, after) =
        rest.split_once(END).with_context(|| format!("the page has no line {END} after the first mark"))?;
    Ok(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", text.trim()))
}

fn as_json(report: &Report, machine: &Machine, verdicts: &[Verdict]) -> Value {
    json!({
        "schema": "socklife.benchmarks/v1",
        "machine": machine.json(),
        "targets": verdicts.iter().map(Verdict::json).collect::<Vec<_>>(),
        "figures": report.json(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_stays() {
        let page = format!("# Title\n\nabove\n\n{BEGIN}\nold\n{END}\n\nbelow\n");
        let expected = format!("# Title\n\nabove\n\n{BEGIN}\n\nnew\n\n{END}\n\nbelow\n");
        assert_eq!(between_marks(&page, "new\n").unwrap(), expected);
        assert_eq!(between_marks(&expected, "new\n").unwrap(), expected);
        assert!(between_marks("no marks", "new").is_err());
        assert!(between_marks(&format!("{END} {BEGIN}"), "new").is_err());
    }

    #[test]
    fn the_page_has_its_marks() {
        let page = fs::read_to_string(docs_file("benchmarks.md")).unwrap();
        between_marks(&page, "").unwrap();
    }
}
