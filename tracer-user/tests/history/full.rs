//! A disk that is full or read-only: the writer waits for it, and nobody waits for the writer. Needs root, for a small file
//! system of its own in a mount namespace of its own.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tracer_core::detect::Store as Findings;
use tracer_core::finding::{Change, FINDING_SCHEMA, Finding, FindingLine, Kind, Severity, Status, Subject};
use tracer_core::ports::PortMap;
use tracer_core::time::{BootNs, WallAnchor, WallTime};
use tracer_core::tracker::{About, Bounds as TrackerBounds, Tracker};
use tracer_user::history::{Access, Asked, Bounds, Run, Tap, What, spawn};

use super::recorded::header;

const NONE: Option<&str> = None;
const PATIENCE: Duration = Duration::from_secs(60);

/// What feeds the writer: each second a finding of some size.
struct Feed {
    tap: Tap,
    access: Access,
    tracker: Tracker,
    findings: Findings,
    about: About,
    anchor: WallAnchor,
    now: BootNs,
}

impl Feed {
    fn begin(dir: &Path) -> Self {
        let header = header();
        let run = Run {
            started_ms: header.anchor.wall(header.anchor.boot).unix_ms,
            source: "live",
            boot_id: "b".to_owned(),
            hostname: "h".to_owned(),
            version: "0".to_owned(),
        };
        let writer = spawn(dir, Bounds::default(), run).unwrap();
        Self {
            access: writer.access(dir).unwrap(),
            tap: Tap::new(writer),
            tracker: Tracker::new(TrackerBounds::default(), PortMap::default(), tracer_core::rules::Rules::default()),
            findings: Findings::default(),
            about: header.about,
            anchor: header.anchor,
            now: header.anchor.boot,
        }
    }

    fn second(&mut self) {
        self.now = self.now.plus(Duration::from_secs(1));
        let at = self.anchor.wall(self.now);
        self.tap.finding(&FindingLine {
            schema: FINDING_SCHEMA.to_owned(),
            change: Change::Opened,
            at,
            finding: finding(at),
        });
        self.tap.second(&self.tracker, (&self.about, &self.findings), self.now, &self.anchor);
        self.access.flush.flush();
    }
}

fn finding(at: WallTime) -> Finding {
    Finding {
        id: at.to_string(),
        kind: Kind::LimitPressure,
        severity: Severity::Critical,
        confidence: 1.0,
        status: Status::Open,
        first_seen: at,
        last_seen: at,
        subject: Subject::default(),
        summary: "x".repeat(4_000),
        evidence: Vec::new(),
        ruled_out: Vec::new(),
        related: Vec::new(),
        cause: None,
        ignored: None,
        remedy: String::new(),
        verify: String::new(),
    }
}

/// A file that takes all the room there is.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    let failed = loop {
        if let Err(error) = file.write_all(&[1; 4_096]) {
            break error;
        }
    };
    assert_eq!(failed.kind(), ErrorKind::StorageFull);
}

#[test]
fn a_disk_that_is_full_or_read_only_pauses_the_writer_and_nobody_else() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("small");
    fs::create_dir(&dir).unwrap();
    // Mounts of this thread and of those it starts: they go with them.
    unshare(CloneFlags::CLONE_NEWNS).expect("this test needs root: run `cargo xtask test` as root or with sudo");
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).unwrap();
    mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some("size=2m")).unwrap();
    let mut feed = Feed::begin(&dir);
    (0..5).for_each(|_| feed.second());
    let health = feed.access.status.health();
    assert_eq!((health.state.as_str(), health.kept, health.not_kept), ("recording", 5, 0));

    let filler = dir.join("filler");
    fill(&filler);
    let mut seconds = 0;
    while feed.access.status.health().state == "recording" {
        feed.second();
        seconds += 1;
        assert!(seconds < 500, "4 KB a second have to fill what is left");
    }
    let health = feed.access.status.health();
    assert!(health.reason.as_ref().unwrap().contains("full"), "{health:?}");
    (0..7).for_each(|_| feed.second());
    let lost = feed.access.status.health().not_kept;
    assert!(lost >= 7, "{lost}");

    // The same place, read-only.
    mount(Some(&dir), &dir, NONE, MsFlags::MS_BIND, NONE).unwrap();
    mount(NONE, &dir, NONE, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, NONE).unwrap();
    let is_read_only = |reason: &Option<String>| reason.as_ref().is_some_and(|why| why.contains("Read-only"));
    let health = feed.access.status.wait_for(PATIENCE, |health| is_read_only(&health.reason));
    assert!(health.state == "paused" && is_read_only(&health.reason), "{health:?}");
    umount2(&dir, MntFlags::MNT_DETACH).unwrap();
    fs::remove_file(&filler).unwrap();

    let health = feed.access.status.wait_for(PATIENCE, |health| health.state == "recording");
    assert_eq!((health.state.as_str(), health.reason), ("recording", None));
    (0..3).for_each(|_| feed.second());
    let lines = feed.access.reader().unwrap();
    let asked = Asked { until: WallTime { unix_ms: i64::MAX }, ..Asked::default() };
    let lines = lines.history(&asked).unwrap();
    let paused = lines.iter().find_map(|line| match &line.what {
        What::Gap { kind, rows, .. } if kind == "paused" => Some(*rows),
        _ => None,
    });
    assert_eq!(paused, Some(feed.access.status.health().not_kept));
    let last = lines.iter().filter(|line| matches!(line.what, What::Finding { .. })).map(|line| line.at).max();
    assert_eq!(last, Some(feed.anchor.wall(feed.now)));
    feed.tap.finish();
}
