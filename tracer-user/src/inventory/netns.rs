//! Which network namespace this is.

use std::path::Path;

use super::InventoryError;

/// Inode number of the calling thread's network namespace: what sock_diag answers for, and what the kernel side puts
/// into its events.
pub fn own_netns(proc_root: &Path) -> Result<u32, InventoryError> {
    // The thread's link, not the process': threads may have moved.
    let path = proc_root.join("thread-self/ns/net");
    let target = std::fs::read_link(&path).map_err(|source| InventoryError::Proc { path: path.clone(), source })?;
    target
        .to_str()
        .and_then(|text| text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok())
        .ok_or(InventoryError::ProcFormat { path })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn the_link_and_the_namespace_file_name_the_same_inode() {
        let inode = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert_eq!(u64::from(own_netns(Path::new("/proc")).unwrap()), inode);
    }

    #[test]
    fn anything_else_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(own_netns(root.path()), Err(InventoryError::Proc { .. })));
        let dir = root.path().join("thread-self/ns");
        std::fs::create_dir_all(&dir).unwrap();
        for target in ["net:[]", "net:[12", "mnt:[12]", "net:[4294967296]", "/etc"] {
            symlink(target, dir.join("net")).unwrap();
            assert!(matches!(own_netns(root.path()), Err(InventoryError::ProcFormat { .. })), "{target}");
            std::fs::remove_file(dir.join("net")).unwrap();
        }
        symlink("net:[4026531840]", dir.join("net")).unwrap();
        assert_eq!(own_netns(root.path()).unwrap(), 4_026_531_840);
    }
}
