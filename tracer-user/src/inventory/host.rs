//! Which host this is.

use std::path::Path;

use nix::sys::utsname::uname;
use tracer_core::snapshot::Host;

use crate::process::files::read_bounded;

/// Names and versions; empty where the system does not say.
#[must_use]
pub fn host(proc_root: &Path) -> Host {
    let names = uname().ok();
    let text = |of: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        names.as_ref().map(|names| of(names).to_string_lossy().into_owned()).unwrap_or_default()
    };
    let boot_id = read_bounded(&proc_root.join("sys/kernel/random/boot_id"), 64);
    Host {
        hostname: text(nix::sys::utsname::UtsName::nodename),
        kernel: text(nix::sys::utsname::UtsName::release),
        arch: text(nix::sys::utsname::UtsName::machine),
        boot_id: boot_id.map(|file| String::from_utf8_lossy(&file.bytes).trim().to_owned()).unwrap_or_default(),
        socklife_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_says_who_it_is() {
        let host = host(Path::new("/proc"));
        assert_eq!(host.boot_id.len(), 36);
        assert!(!host.hostname.is_empty());
        assert!(host.kernel.starts_with(|first: char| first.is_ascii_digit()));
    }
}
