//! The port filter of a sock_diag dump: bytecode the kernel runs on every socket of its table
//! (`net/ipv4/inet_diag.c`, `inet_diag_bc_run`), so that only watched sockets are copied out.
//!
//! Pure: ports in, bytes out.

use tracer_core::ports::PortMap;

/// `INET_DIAG_BC_*` from `include/uapi/linux/inet_diag.h`. The equality operators are newer (4.16) than these and buy
/// nothing here: neighbouring ports share one range.
const JMP: u8 = 1;
const S_GE: u8 = 2;
const S_LE: u8 = 3;
const D_GE: u8 = 4;
const D_LE: u8 = 5;

/// `struct inet_diag_bc_op`.
const OP_LEN: u8 = 4;
/// A port comparison: the operator, and a second one that carries the port in its `no`.
const COMPARE_LEN: u8 = 2 * OP_LEN;
/// Two comparisons and the jump to "yes".
const RANGE_LEN: u8 = 2 * COMPARE_LEN + OP_LEN;

/// Most ranges in one filter. The kernel's audit takes quadratic time, and jumps and the attribute reach 65,535
/// bytes: 512 ranges, both ends of the connection, are 20,496.
const MAX_RANGES: usize = 512;

/// A compiled filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortFilter {
    bytecode: Vec<u8>,
}

impl PortFilter {
    /// Local or remote port in `ports`, and every listener. With more than [`MAX_RANGES`] separate ranges the filter is empty: the kernel
    /// hands out every socket, and the reader, who looks at the ports anyway, drops the rest.
    pub(super) fn new(ports: &PortMap) -> Self {
        let ranges = ranges(ports);
        Self { bytecode: if ranges.len() > MAX_RANGES { Vec::new() } else { compile(&ranges) } }
    }

    /// The value of `INET_DIAG_REQ_BYTECODE`; empty to ask for everything.
    pub(super) fn bytecode(&self) -> &[u8] {
        &self.bytecode
    }
}

/// The watched ports as inclusive ranges, ascending. Port 0 is no port.
fn ranges(ports: &PortMap) -> Vec<(u16, u16)> {
    let mut out: Vec<(u16, u16)> = Vec::new();
    for (port, _) in ports.iter().filter(|(port, _)| *port != 0) {
        match out.last_mut() {
            Some((_, high)) if port - *high == 1 => *high = port,
            _ => out.push((port, port)),
        }
    }
    out
}

/// Each range, for the local and for the remote port, is
/// ```text
///   ge low    no: next range
///   le high   no: next range
///   jmp       end of the program: yes
/// ```
/// A remote port of 0 is a listener's. The program ends in a jump four bytes behind its end, which means no. An
/// operator's `yes` is always its own length, because the kernel's audit walks the program by it; far jumps are `no` of
/// `jmp`, which has 16 bits.
fn compile(ranges: &[(u16, u16)]) -> Vec<u8> {
    let conditions = ranges.iter().flat_map(|(low, high)| [(S_GE, S_LE, *low, *high), (D_GE, D_LE, *low, *high)]);
    // At most 2 * MAX_RANGES * RANGE_LEN + COMPARE_LEN + 2 * OP_LEN = 20,496.
    let total = 2 * ranges.len() * usize::from(RANGE_LEN) + usize::from(COMPARE_LEN + 2 * OP_LEN);
    let mut code = Vec::with_capacity(total);
    op(&mut code, D_LE, COMPARE_LEN, u16::from(COMPARE_LEN + OP_LEN));
    op(&mut code, 0, 0, 0);
    let to_end = total - code.len();
    op(&mut code, JMP, OP_LEN, u16::try_from(to_end).unwrap_or(u16::MAX));
    for (ge, le, low, high) in conditions {
        op(&mut code, ge, COMPARE_LEN, u16::from(RANGE_LEN));
        op(&mut code, 0, 0, low);
        op(&mut code, le, COMPARE_LEN, u16::from(RANGE_LEN - COMPARE_LEN));
        op(&mut code, 0, 0, high);
        let to_end = total - code.len();
        op(&mut code, JMP, OP_LEN, u16::try_from(to_end).unwrap_or(u16::MAX));
    }
    op(&mut code, JMP, OP_LEN, u16::from(2 * OP_LEN));
    code
}

fn op(code: &mut Vec<u8>, operator: u8, yes: u8, no: u16) {
    code.extend_from_slice(&[operator, yes]);
    code.extend_from_slice(&no.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(ports: &[u16]) -> PortMap {
        let mut map = PortMap::default();
        let defaults: Vec<u16> = map.iter().map(|(port, _)| port).collect();
        assert!(defaults.contains(&5432), "the default map is not empty");
        for port in ports {
            map.insert(*port, "x".to_owned());
        }
        map
    }

    fn read(code: &[u8], at: usize) -> (u8, usize, u16) {
        (code[at], usize::from(code[at + 1]), u16::from_ne_bytes([code[at + 2], code[at + 3]]))
    }

    /// The kernel's `inet_diag_bc_run`.
    fn run(code: &[u8], sport: u16, dport: u16) -> bool {
        let mut at = 0usize;
        while at < code.len() {
            let (operator, yes, no) = read(code, at);
            let port = || read(code, at + 4).2;
            let pass = match operator {
                JMP => false,
                S_GE => sport >= port(),
                S_LE => sport <= port(),
                D_GE => dport >= port(),
                D_LE => dport <= port(),
                _ => unreachable!("operator {operator}"),
            };
            at += if pass { yes } else { usize::from(no) };
        }
        at == code.len()
    }

    /// The kernel's `inet_diag_bc_audit` with `valid_cc`.
    fn audit(code: &[u8]) {
        let mut starts = Vec::new();
        let mut at = 0usize;
        while at < code.len() {
            starts.push(at);
            let (operator, yes, no) = read(code, at);
            let left = code.len() - at;
            let least = if operator == JMP { 4 } else { 8 };
            assert!(least <= left && yes >= least && yes <= left + 4 && yes % 4 == 0, "yes {yes} at {at}");
            let no = usize::from(no);
            assert!(no >= least && no <= left + 4 && no % 4 == 0, "no {no} at {at}");
            at += yes;
        }
        assert_eq!(at, code.len());
        for start in &starts {
            let target = start + usize::from(read(code, *start).2);
            assert!(target >= code.len() || starts.contains(&target), "jump from {start} into an argument");
        }
    }

    #[test]
    fn the_default_ports_pass_the_kernels_audit_and_nothing_else_matches() {
        let ports = PortMap::default();
        let filter = PortFilter::new(&ports);
        audit(filter.bytecode());
        for port in 0..=u16::MAX {
            let expected = port != 0 && ports.contains(port);
            assert_eq!(run(filter.bytecode(), port, 1), expected, "local {port}");
            assert_eq!(run(filter.bytecode(), 1, port), expected || port == 0, "remote {port}");
        }
    }

    #[test]
    fn neighbours_share_a_range_and_port_zero_is_none() {
        assert_eq!(
            ranges(&map(&[0, 5430, 5431, 5433, 65535]))
                .iter()
                .filter(|(low, high)| *high > 5400 && *low < 5500 || *high > 60000 || *low < 10)
                .collect::<Vec<_>>(),
            [&(5430, 5433), &(65535, 65535)]
        );
    }

    #[test]
    fn too_many_ports_leave_the_choice_to_the_reader() {
        let many: Vec<u16> = (0..600u16).map(|i| 2000 + 2 * i).collect();
        assert!(PortFilter::new(&map(&many)).bytecode().is_empty());
        let some: Vec<u16> = (0..480u16).map(|i| 2000 + 2 * i).collect();
        let filter = PortFilter::new(&map(&some));
        audit(filter.bytecode());
        assert!(run(filter.bytecode(), 2958, 1) && run(filter.bytecode(), 1, 2000) && !run(filter.bytecode(), 2957, 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_ports_give_a_sound_program(extra in proptest::collection::vec(any::<u16>(), 0..300), probe in any::<u16>()) {
            let ports = map(&extra);
            let filter = PortFilter::new(&ports);
            audit(filter.bytecode());
            for port in extra.iter().copied().chain([probe]) {
                let expected = port != 0 && ports.contains(port);
                prop_assert_eq!(run(filter.bytecode(), port, 1), expected || ports.contains(1));
                prop_assert!(run(filter.bytecode(), port, 0), "a listener");
                // A remote port of 0 is a listener's.
                prop_assert_eq!(run(filter.bytecode(), 0, port), expected || port == 0);
            }
        }
    }
}
