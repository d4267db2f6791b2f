use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use super::*;

/// A fake /proc.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn stat(&self, pid: u32, comm: &[u8], ppid: u32, start: u64) -> PathBuf {
        let dir = self.0.path().join(pid.to_string());
        fs::create_dir_all(&dir).unwrap();
        let tail = format!(") S {ppid} 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0 0\n");
        fs::write(dir.join("stat"), [b"1 (", comm, tail.as_bytes()].concat()).unwrap();
        dir
    }

    fn read(&self, pid: u32, policy: CmdlinePolicy) -> Identity {
        IdentityReader::new(self.0.path(), policy).read(pid).unwrap().unwrap()
    }
}

#[test]
fn a_process_with_everything() {
    let tree = Tree::new();
    tree.stat(1, b"systemd", 0, 1);
    tree.stat(50, b"sup (x)", 1, 2);
    let dir = tree.stat(60, b"python3", 50, 4_242);
    symlink("/usr/bin/python3.11 (deleted)", dir.join("exe")).unwrap();
    symlink("/srv/app", dir.join("cwd")).unwrap();
    fs::write(dir.join("cmdline"), b"python3\0-u\0job.py\0--password\0hunter2\0--port\08000\0").unwrap();
    fs::write(dir.join("status"), "Name:\tpython3\nUid:\t1\t0\t2\t3\nNSpid:\t60\t7\t1\n").unwrap();
    fs::write(dir.join("cgroup"), "0::/system.slice/docker-0123456789ab.scope\n").unwrap();
    let identity = tree.read(60, CmdlinePolicy::Redacted);
    let ancestor = |pid, comm: &str| Ancestor { pid, comm: comm.to_owned() };
    let text = |text: &str| Some(text.to_owned());
    let expected = Identity {
        id: ProcessId { pid: 60, start_ticks: 4_242 },
        comm: "python3".to_owned(),
        exe: text("/usr/bin/python3.11 (deleted)"),
        script: text("/srv/app/job.py"),
        cmdline: text("python3 -u job.py --password *** --port 8000"),
        ns_pid: Some(1),
        ppid: Some(50),
        ancestors: vec![ancestor(50, "sup (x)"), ancestor(1, "systemd")],
        master: None,
        uid: Some(0),
        user: text("root"),
        cgroup: text("/system.slice/docker-0123456789ab.scope"),
        container_id: text("0123456789ab"),
        systemd_unit: text("docker-0123456789ab.scope"),
        group: identity.group.clone(),
    };
    assert_eq!(identity, expected);
    assert_eq!(identity.group.label, "job.py");
    assert_eq!(tree.read(60, CmdlinePolicy::Off).cmdline, None);

    // Another copy: other port, other password, other pid.
    let dir = tree.stat(61, b"python3", 1, 5_000);
    symlink("/usr/bin/python3.11", dir.join("exe")).unwrap();
    symlink("/srv/app", dir.join("cwd")).unwrap();
    fs::write(dir.join("status"), "Uid:\t0\t0\t0\t0\nNSpid:\t61\n").unwrap();
    assert_eq!(tree.read(61, CmdlinePolicy::Off).ns_pid, None, "it has one pid");
    fs::write(dir.join("cmdline"), b"python3\0/srv/app/job.py\0--password\0x\0--port\08001\0").unwrap();
    assert_eq!(tree.read(61, CmdlinePolicy::Off).group, identity.group);
}

#[test]
fn the_master_of_a_worker_runs_the_same_program() {
    let tree = Tree::new();
    let start = |pid: u32, ppid: u32, exe: &str, cmdline: &str| {
        let dir = tree.stat(pid, b"python3", ppid, u64::from(pid));
        symlink(exe, dir.join("exe")).unwrap();
        symlink("/srv", dir.join("cwd")).unwrap();
        fs::write(dir.join("cmdline"), cmdline.replace(' ', "\0")).unwrap();
    };
    let python = "/usr/bin/python3.11";
    start(1, 0, "/usr/lib/systemd/systemd", "/sbin/init");
    start(40, 1, python, "python3 scheduler.py");
    start(50, 40, python, "python3 gunicorn app:app");
    start(60, 50, python, "python3 gunicorn app:app");
    start(61, 60, python, "python3 gunicorn app:app");
    start(70, 40, python, "python3 job.py");
    start(80, 40, "/usr/bin/bash", "bash");
    let master = |pid| tree.read(pid, CmdlinePolicy::Off).master;
    assert_eq!((master(61), master(60), master(50)), (Some(50), Some(50), None));
    assert_eq!((master(70), master(80), master(40)), (None, None, None));
}

#[test]
fn modules_of_different_places_are_different_programs() {
    let tree = Tree::new();
    let group = |pid: u32, cwd: &str, cmdline: &str| {
        let dir = tree.stat(pid, b"python3", 0, 1);
        symlink("/usr/bin/python3.11", dir.join("exe")).unwrap();
        symlink(cwd, dir.join("cwd")).unwrap();
        fs::write(dir.join("cmdline"), cmdline.replace(' ', "\0")).unwrap();
        tree.read(pid, CmdlinePolicy::Off).group
    };
    let one = group(1, "/srv/a", "python3 -m main --id 1");
    assert_eq!(one.label, "main");
    assert_eq!(one, group(2, "/srv/a", "python3 -m main --id 2"));
    assert_ne!(one, group(3, "/srv/b", "python3 -m main --id 1"));
    assert_ne!(one, group(4, "/srv/a", "python3 -m other --id 1"));
}

#[test]
fn what_cannot_be_read_is_unknown() {
    let tree = Tree::new();
    tree.stat(7, b"\xff\x1b[2J", 6, 1);
    let identity = tree.read(7, CmdlinePolicy::Redacted);
    assert_eq!(identity.comm, "\u{fffd}\u{1b}[2J");
    assert_eq!((identity.ppid, identity.uid, identity.ancestors.len()), (Some(6), None, 0));
    assert_eq!((&identity.exe, &identity.script, &identity.cmdline), (&None, &None, &None));
    assert_eq!((&identity.user, &identity.cgroup), (&None, &None));
    assert_eq!(identity.group.label, identity.comm);
}

#[test]
fn hostile_lengths_are_cut() {
    let tree = Tree::new();
    let dir = tree.stat(7, b"x", 7, 1);
    symlink("/usr/bin/python3", dir.join("exe")).unwrap();
    let long = "é".repeat(40_000);
    fs::write(dir.join("cmdline"), format!("python3\0{long}\0--password\0{long}")).unwrap();
    fs::write(dir.join("cgroup"), format!("0::/{}\n", "c".repeat(100_000))).unwrap();
    let identity = tree.read(7, CmdlinePolicy::Redacted);
    assert_eq!(identity.script.unwrap().len(), TEXT_MAX);
    assert!(identity.cmdline.unwrap().len() <= redact::CMDLINE_MAX);
    assert_eq!(identity.cgroup.unwrap().len(), TEXT_MAX);
    // Its own parent: the chain is bounded.
    assert_eq!(identity.ancestors.len(), ANCESTORS_MAX);
}

#[test]
fn an_argument_cut_by_the_bound_is_dropped() {
    let tree = Tree::new();
    let dir = tree.stat(7, b"x", 0, 1);
    let secret = format!("postgres://user:{}", "s".repeat(CMDLINE_MAX));
    fs::write(dir.join("cmdline"), format!("psql\0{secret}@host/db\0")).unwrap();
    assert_eq!(tree.read(7, CmdlinePolicy::Redacted).cmdline.unwrap(), "psql");
}

#[test]
fn no_process_and_no_format() {
    let tree = Tree::new();
    let mut reader = IdentityReader::new(tree.0.path(), CmdlinePolicy::Off);
    assert_eq!(reader.read(7).unwrap(), None);
    let dir = tree.stat(7, b"x", 0, 1);
    fs::write(dir.join("stat"), "nonsense").unwrap();
    let error = reader.read(7).unwrap_err();
    assert!(matches!(error, IdentityError::Format { .. }) && error.to_string().contains("/7/stat"));
    fs::remove_file(dir.join("stat")).unwrap();
    fs::create_dir(dir.join("stat")).unwrap();
    assert!(matches!(reader.read(7), Err(IdentityError::Read { .. })));
}

#[test]
fn a_real_process() {
    let script = tempfile::Builder::new().suffix(".sh").tempfile().unwrap();
    fs::write(script.path(), "echo ready; read x\n").unwrap();
    let mut child = Command::new("/bin/sh")
        .arg(script.path())
        .args(["--port", "8000"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    io::BufRead::read_line(&mut io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
    let mut reader = IdentityReader::new(Path::new("/proc"), CmdlinePolicy::Redacted);
    let identity = reader.read(child.id()).unwrap().unwrap();
    let path = script.path().to_str().unwrap();
    assert_eq!(identity.script.as_deref(), Some(path));
    assert_eq!(identity.cmdline.unwrap(), format!("/bin/sh {path} --port 8000"));
    assert_eq!(identity.ppid, Some(std::process::id()));
    assert_eq!(identity.ancestors[0].pid, std::process::id());
    assert_eq!(identity.uid, Some(nix::unistd::geteuid().as_raw()));
    assert_eq!(identity.group.label, path.rsplit('/').next().unwrap());
    assert!(identity.exe.is_some() && identity.id.start_ticks > 0);
    // Its end is the end of its input.
    drop(child.stdin.take());
    assert!(child.wait().is_ok());
    assert_eq!(reader.read(identity.id.pid).unwrap().map(|other| other.id == identity.id), None);
}

#[test]
fn a_parent_is_that_of_the_very_process() {
    let tree = Tree::new();
    tree.stat(60, b"python3", 50, 4_242);
    let reader = IdentityReader::new(tree.0.path(), CmdlinePolicy::Off);
    let parent = |pid, start_ticks| reader.parent(ProcessId { pid, start_ticks });
    assert_eq!(parent(60, 4_242), Some(50));
    tree.stat(60, b"python3", 1, 4_242);
    assert_eq!(parent(60, 4_242), Some(1), "adopted");
    assert_eq!((parent(60, 9), parent(61, 1)), (None, None), "a later process, and none");
}
