//! Control group, container and systemd unit, from the text of `/proc/PID/cgroup`. Pure: text in, names out.

use tracer_core::identity::undeleted;

/// What the control group path says of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// The path in the v2 hierarchy, or in systemd's where that one says nothing.
    pub path: Option<String>,
    /// Container id, or an LXC container's name.
    pub container_id: Option<String>,
    /// systemd unit, of the system's or of a user's manager.
    pub systemd_unit: Option<String>,
}

/// Prefixes of container scopes and directories: `docker-<id>.scope`, `cri-containerd-<id>.scope`, and so on. The
/// monitors that runtimes put beside a container (`crio-conmon-`, `libpod-conmon-`) are not in it.
const RUNTIMES: &[&str] = &["docker", "cri-containerd", "containerd", "nerdctl", "crio", "libpod", "libpod-payload"];

/// Directories whose children are named by bare container ids.
const PARENTS: &[&str] = &["docker", "libpod_parent", "containerd", "ecs", "buildkit", "actions_job"];

/// Shortest id that is one: Docker's short form.
const ID_MIN: usize = 12;

/// A full id.
const ID_LEN: usize = 64;

impl Cgroup {
    /// Reads the file's text: one line a hierarchy, `ID:CONTROLLERS:PATH`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let (mut unified, mut systemd, mut other) = (None, None, None);
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(id), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let path = undeleted(path);
            let slot = match controllers {
                "" if id == "0" => &mut unified,
                "name=systemd" => &mut systemd,
                _ => &mut other,
            };
            // The first that says something.
            if slot.is_none_or(|known| known == "/") {
                *slot = Some(path);
            }
        }
        let told = |path: &Option<&str>| path.is_some_and(|path| path != "/");
        // A hybrid host leaves v2 at "/" when it uses v1; without systemd, a runtime names only its controllers.
        let path = [unified, systemd, other].into_iter().find(told).unwrap_or(unified.or(systemd).or(other));
        let ids = [unified, systemd, other].into_iter().flatten().find_map(container_id);
        Self {
            path: path.map(str::to_owned),
            container_id: ids,
            systemd_unit: [unified, systemd].into_iter().flatten().find_map(systemd_unit),
        }
    }
}

/// The innermost container a path names.
fn container_id(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').collect();
    (0..parts.len()).rev().find_map(|at| {
        let part = parts.get(at)?;
        let parent = at.checked_sub(1).and_then(|above| parts.get(above)).copied().unwrap_or_default();
        scope_id(part).or_else(|| bare_id(part, parent)).or_else(|| lxc_name(part, parent)).map(str::to_owned)
    })
}

/// `RUNTIME-ID.scope`, without systemd also `SLICE:RUNTIME:ID` (a path systemd did not translate).
fn scope_id(part: &str) -> Option<&str> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    if let Some((slice, id)) = name.rsplit_once(':') {
        let runtime = slice.rsplit(':').next()?;
        return (RUNTIMES.contains(&runtime) && is_id(id)).then_some(id);
    }
    let (runtime, id) = name.rsplit_once('-')?;
    (RUNTIMES.contains(&runtime) && is_id(id)).then_some(id)
}

/// A full id anywhere, a shorter one below a directory that holds containers.
fn bare_id<'a>(part: &'a str, parent: &str) -> Option<&'a str> {
    // Amazon ECS appends a number to a 32 digit id.
    let id = part.split_once('-').map_or(part, |(id, _)| id);
    if parent == "ecs" || parent.len() >= 32 && is_id(parent) {
        return (is_id(id) && id.len() >= 32).then_some(part);
    }
    let in_pod = parent.starts_with("pod") || parent.contains("-pod");
    let known = part.len() == ID_LEN || in_pod || PARENTS.contains(&parent);
    (known && is_id(part)).then_some(part)
}

/// `/lxc/NAME`, `/lxc.payload/NAME`, `/lxc.payload.NAME`.
fn lxc_name<'a>(part: &'a str, parent: &str) -> Option<&'a str> {
    let name = if matches!(parent, "lxc" | "lxc.payload") { Some(part) } else { part.strip_prefix("lxc.payload.") };
    name.filter(|name| !name.is_empty())
}

fn is_id(text: &str) -> bool {
    (ID_MIN..=ID_LEN).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The innermost service or scope that is no login session. A user's own manager (`user@1000.service`) counts only where
/// nothing below it does.
fn systemd_unit(path: &str) -> Option<String> {
    let is_unit = |part: &&str| {
        let name = part.strip_suffix(".service").or_else(|| part.strip_suffix(".scope"));
        let session = part.starts_with("session-") && part.ends_with(".scope");
        name.is_some_and(|name| !name.is_empty()) && !session
    };
    path.rsplit('/').find(is_unit).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f1c2b9d8e7a6f5040302010ffeeddccbbaa99887766554433221100aabbccdd";

    /// `path`, `container`, `unit`; in the text and in the expectation `ID` stands for a full id.
    #[track_caller]
    fn check(text: &str, path: &str, container: &str, unit: &str) {
        let text = text.replace("ID", ID);
        let some = |text: &str| (!text.is_empty()).then(|| text.replace("ID", ID));
        let expected = Cgroup { path: some(path), container_id: some(container), systemd_unit: some(unit) };
        assert_eq!(Cgroup::parse(&text), expected, "{text}");
    }

    /// One v2 path.
    #[track_caller]
    fn v2(path: &str, container: &str, unit: &str) {
        check(&format!("0::{path}\n"), path, container, unit);
    }

    #[test]
    fn plain_hosts() {
        check("", "", "", "");
        check("garbage\n1:x\n", "", "", "");
        v2("/", "", "");
        v2("/init.scope", "", "init.scope");
        v2("/system.slice/postgresql@15-main.service", "", "postgresql@15-main.service");
        v2("/system.slice/system-worker.slice/worker@3.service/inner", "", "worker@3.service");
        v2("/user.slice/user-1000.slice/session-3.scope", "", "");
        v2("/user.slice/user-1000.slice/user@1000.service/app.slice/app-job.service", "", "app-job.service");
        v2("/user.slice/user-1000.slice/user@1000.service/init.scope", "", "init.scope");
        v2("/user.slice/user-1000.slice/user@1000.service", "", "user@1000.service");
        v2("/system.slice/.service", "", "");
        v2("/system.slice/a:b.service", "", "a:b.service");
        check("0::/system.slice/gone.service (deleted)\n", "/system.slice/gone.service", "", "gone.service");
    }

    #[test]
    fn containers_under_systemd() {
        v2("/system.slice/docker-ID.scope", "ID", "docker-ID.scope");
        v2("/system.slice/docker-ID.scope/system.slice/app.service", "ID", "app.service");
        v2(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-ID.scope",
            "ID",
            "cri-containerd-ID.scope",
        );
        v2("/kubepods.slice/kubepods-pod9.slice/crio-ID.scope", "ID", "crio-ID.scope");
        v2("/kubepods.slice/kubepods-pod9.slice/crio-conmon-ID.scope", "", "crio-conmon-ID.scope");
        v2("/machine.slice/libpod-ID.scope/container", "ID", "libpod-ID.scope");
        v2("/machine.slice/libpod-conmon-ID.scope", "", "libpod-conmon-ID.scope");
        v2("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope", "ID", "libpod-ID.scope");
        v2("/system.slice/nerdctl-ID.scope", "ID", "nerdctl-ID.scope");
        v2("/system.slice:docker:ID", "ID", "");
        v2("/kubelet-kubepods-pod1.slice:cri-containerd:ID", "ID", "");
    }

    #[test]
    fn containers_without_systemd() {
        v2("/docker/ID", "ID", "");
        v2("/docker/3f1c2b9d8e7a", "3f1c2b9d8e7a", "");
        v2("/docker/3f1c2b9d8e7", "", "");
        v2("/docker/buildkit", "", "");
        v2("/kubepods/besteffort/pod6f1c-22/ID", "ID", "");
        v2("/kubepods/burstable/pod6f1c-22", "", "");
        v2("/libpod_parent/libpod-ID", "ID", "");
        v2("/default/ID", "ID", "");
        v2("/docker/0000000000000000000000000000000000000000000000000000000000000000/docker/ID", "ID", "");
        v2("/lxc/web-1", "web-1", "");
        v2("/lxc.payload/web-1/system.slice/app.service", "web-1", "app.service");
        v2("/lxc.payload.web-1/init.scope", "web-1", "init.scope");
        v2("/lxc.monitor.web-1", "", "");
        v2("/ecs/0123456789abcdef0123456789abcdef/ID", "ID", "");
        v2(
            "/ecs/0123456789abcdef0123456789abcdef/0123456789abcdef0123456789abcdef-1234567890",
            "0123456789abcdef0123456789abcdef-1234567890",
            "",
        );
        v2("/deadbeefdeadbeef", "", "");
        v2("/docker/ID0", "", "");
        v2("/docker/3F1C2B9D8E7A", "", "");
    }

    #[test]
    fn version_1_and_hybrid_hosts() {
        check("12:memory:/docker/ID\n3:cpu,cpuacct:/docker/ID\n1:name=systemd:/docker/ID\n", "/docker/ID", "ID", "");
        check(
            "4:memory:/\n1:name=systemd:/system.slice/app.service\n0::/\n",
            "/system.slice/app.service",
            "",
            "app.service",
        );
        check(
            "4:memory:/\n1:name=systemd:/system.slice/a.service\n0::/system.slice/a.service\n",
            "/system.slice/a.service",
            "",
            "a.service",
        );
        // No systemd at all: only the controllers name the container.
        check("4:memory:/docker/ID\n2:pids:/\n0::/\n", "/docker/ID", "ID", "");
        check("5:freezer:/\n4:memory:/docker/ID\n", "/docker/ID", "ID", "");
        check("4:memory:/\n0::/\n", "/", "", "");
    }
}
