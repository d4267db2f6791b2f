//! Offsets of kernels that are not this one, from what `cargo xtask btf-fixture` keeps of their descriptions. The expected
//! numbers are a C compiler's: see expected.py beside the fixtures.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/btf").join(name)
}

/// Field and number of each line.
fn numbers<'a>(lines: impl Iterator<Item = &'a str>, between: &str) -> BTreeMap<String, u32> {
    let line = |line: &'a str| {
        let (field, number) = line.trim().trim_end_matches(',').split_once(between)?;
        Some((field.to_owned(), number.parse().unwrap()))
    };
    lines.filter_map(line).collect()
}

fn check(kernel: &str) {
    let offsets = resolve(&fixture(&format!("{kernel}.btf"))).unwrap().offsets;
    let resolved = format!("{offsets:#?}");
    let resolved = numbers(resolved.lines(), ": ");
    let expected = std::fs::read_to_string(fixture(&format!("{kernel}.txt"))).unwrap();
    let expected = numbers(expected.lines(), " ");
    assert_eq!(resolved.len() * size_of::<u32>(), size_of::<Offsets>(), "fields were passed over: {resolved:?}");
    assert_eq!(resolved, expected, "{kernel}");
}

#[test]
fn every_kernel_has_its_own_offsets() {
    for kernel in ["5.10-x86_64", "6.1-x86_64", "6.12-x86_64", "6.18-x86_64", "6.1-aarch64"] {
        check(kernel);
    }
}

#[test]
fn reasons_have_each_kernels_own_numbers() {
    let reasons = |kernel: &str| resolve(&fixture(&format!("{kernel}.btf"))).unwrap().drop_reasons;
    assert!(reasons("5.10-x86_64").is_empty(), "5.17 was the first to have any");
    // As `bpftool btf dump` shows them.
    for (kernel, number) in [("6.1-x86_64", 7), ("6.12-x86_64", 11), ("6.18-x86_64", 12), ("6.1-aarch64", 7)] {
        let reasons = reasons(kernel);
        assert_eq!(reasons.get(&number).map(String::as_str), Some("NETFILTER_DROP"), "{kernel}");
        assert!(!reasons.values().any(|name| EVERYDAY.contains(&name.as_str())), "{kernel}: {reasons:?}");
    }
}

#[test]
fn what_is_missing_or_cut_short_is_named() {
    let whole = std::fs::read(fixture("6.1-x86_64.btf")).unwrap();
    let unnamed = |name: &str| {
        let mut bytes = whole.clone();
        let wanted = format!("\0{name}\0");
        let at = bytes.windows(wanted.len()).position(|window| window == wanted.as_bytes()).unwrap();
        bytes[at + 1] = b'?';
        resolve_bytes(&bytes).unwrap_err()
    };
    assert_eq!(unnamed("icsk_retransmits"), "struct inet_connection_sock has no member icsk_retransmits");
    assert_eq!(unnamed("signal_struct"), "it has no struct signal_struct");
    for end in [0, 10, 24, whole.len() / 2, whole.len() - 1] {
        assert!(resolve_bytes(&whole[..end]).is_err(), "{end} bytes were enough");
    }
}

#[test]
fn a_socket_laid_out_otherwise_is_refused() {
    let good = resolve(&fixture("6.12-x86_64.btf")).unwrap().offsets;
    let state = good.skc_dport + 6;
    assert_eq!(check_layout(&good, state), Ok(()));
    assert!(check_layout(&good, state + 1).is_err(), "the state elsewhere");
    assert!(check_layout(&Offsets { skc_num: good.skc_num + 2, ..good }, state).is_err(), "the port elsewhere");
    assert!(check_layout(&Offsets { skc_v6_daddr: 104, ..good }, state).is_err(), "beyond what is read");
}
