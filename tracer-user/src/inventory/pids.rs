//! Which pid namespace /proc numbers processes in.

use std::path::Path;

/// Inode number of the initial pid namespace: `PROC_PID_INIT_INO` (include/linux/proc_ns.h) since Linux 3.8.
const INITIAL: &str = "pid:[4026531836]";

/// Whether the pids of this /proc are those of the initial pid namespace, which are the ones that kernel events carry.
/// Its first process, which every namespace has, tells; where it may not be read, this process does. Unknown counts as
/// yes.
#[must_use]
pub fn host_pids(proc_root: &Path) -> bool {
    let namespace = |of: &str| std::fs::read_link(proc_root.join(of).join("ns/pid")).ok();
    namespace("1").or_else(|| namespace("self")).is_none_or(|link| link == Path::new(INITIAL))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_first_process_tells_else_this_one() {
        let root = tempfile::tempdir().unwrap();
        let check = |first: Option<&str>, own: Option<&str>, expected: bool| {
            for (of, target) in [("1", first), ("self", own)] {
                let dir = root.path().join(of).join("ns");
                // Absent at first.
                let _ = std::fs::remove_dir_all(&dir);
                std::fs::create_dir_all(&dir).unwrap();
                if let Some(target) = target {
                    symlink(target, dir.join("pid")).unwrap();
                }
            }
            assert_eq!(host_pids(root.path()), expected, "{first:?} {own:?}");
        };
        check(Some(INITIAL), Some("pid:[4026532281]"), true);
        check(Some("pid:[4026532281]"), Some(INITIAL), false);
        check(None, Some(INITIAL), true);
        check(None, Some("pid:[4026532281]"), false);
        check(None, None, true);
    }
}
