//! Recordings as files: compressed, written as they come and flushed every second, read up to the last whole frame.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use tracer_core::recording::{Decoder, Frame, Header, RecordingError};

/// Bytes read at once.
const CHUNK_BYTES: usize = 256 << 10;
/// What a gzip file begins with (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A recording being written.
#[derive(Debug)]
pub struct Writer {
    file: GzEncoder<BufWriter<File>>,
}

impl Writer {
    /// Makes the file, mode 0640. One that is there stays, unless `replace` says otherwise.
    pub fn create(path: &Path, replace: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).mode(0o640);
        let file = if replace { options.create(true).truncate(true) } else { options.create_new(true) }.open(path)?;
        if file.metadata()?.is_file() {
            file.set_permissions(Permissions::from_mode(0o640))?;
        }
        Ok(Self { file: GzEncoder::new(BufWriter::new(file), Compression::fast()) })
    }

    /// Bytes of a recording, as they come.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// What was written so far can be read, whatever happens next.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    /// Ends the file; its size in bytes.
    pub fn finish(self) -> io::Result<u64> {
        let file = self.file.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    }
}

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file system says no.
    #[error("cannot read {}: {why}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// There is nothing to replay in it.
    #[error("cannot replay {}: {why}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        why: RecordingError,
    },
    /// It ends before its header does.
    #[error("cannot replay {}: it ends before it begins", .0.display())]
    Empty(PathBuf),
}

/// A recording being read.
pub struct Reader {
    path: PathBuf,
    bytes: Box<dyn Read>,
    chunk: Vec<u8>,
    decoder: Decoder,
    /// Why the recording ends before its time.
    broken: Option<String>,
    is_over: bool,
}

impl Reader {
    /// Opens a recording, compressed or as the daemon streams it, and reads its header.
    pub fn open(path: &Path) -> Result<(Self, Header), ReadError> {
        let failed = |why| ReadError::Io { path: path.to_owned(), why };
        let mut file = BufReader::new(File::open(path).map_err(failed)?);
        let compressed = file.fill_buf().map_err(failed)?.starts_with(&GZIP);
        let bytes: Box<dyn Read> = if compressed { Box::new(GzDecoder::new(file)) } else { Box::new(file) };
        let mut reader = Self {
            path: path.to_owned(),
            bytes,
            chunk: vec![0; CHUNK_BYTES],
            decoder: Decoder::default(),
            broken: None,
            is_over: false,
        };
        match reader.next_frame()? {
            Some(Frame::Header(header)) => Ok((reader, header.into_owned())),
            Some(_) => Err(ReadError::Content { path: path.to_owned(), why: RecordingError::Foreign }),
            None => Err(ReadError::Empty(path.to_owned())),
        }
    }

    /// The next frame; `None` at the end, whole or not: see [`Self::broken`].
    pub fn next_frame(&mut self) -> Result<Option<Frame<'static>>, ReadError> {
        while !self.is_over {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => {
                    self.is_over = matches!(frame, Frame::End { .. });
                    return Ok(Some(frame));
                }
                Ok(None) => self.read()?,
                Err(why @ RecordingError::Damaged { .. }) => self.stop(why.to_string()),
                Err(why) => return Err(ReadError::Content { path: self.path.clone(), why }),
            }
        }
        Ok(None)
    }

    /// Why the recording ends before its time, if it does.
    #[must_use]
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    fn read(&mut self) -> Result<(), ReadError> {
        match self.bytes.read(&mut self.chunk) {
            Ok(0) => self.stop("it is cut off".to_owned()),
            Ok(read) => self.decoder.push(self.chunk.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.stop("it is cut off".to_owned()),
            // What the decompressor says of damaged data.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
                self.stop("it is damaged".to_owned());
            }
            Err(why) => return Err(ReadError::Io { path: self.path.clone(), why }),
        }
        Ok(())
    }

    fn stop(&mut self, why: String) {
        self.broken = Some(why);
        self.is_over = true;
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeMap;

    use tracer_core::detect::DetectConfig;
    use tracer_core::ports::PortMap;
    use tracer_core::recording::{encode, preamble};
    use tracer_core::snapshot::{Host, Mode};
    use tracer_core::time::{BootNs, WallAnchor};
    use tracer_core::tracker::{About, Bounds, Tracker};

    use super::*;

    fn header() -> Header {
        let tracker = Tracker::new(Bounds::default(), PortMap::default(), BTreeMap::new());
        let text = || "x".to_owned();
        let host = Host { hostname: text(), kernel: text(), arch: text(), boot_id: text(), socklife_version: text() };
        let (probes, drop_reasons) = (Vec::new(), BTreeMap::new());
        let about = About {
            host,
            mode: Mode::Ebpf,
            started: BootNs(1),
            probes,
            drop_reasons,
            host_pids: true,
            config: tracer_core::setup::InForce::default(),
        };
        tracker.header(&about, &DetectConfig::default(), WallAnchor { boot: BootNs(5), unix_ns: 0 })
    }

    /// How many frames come after the header, and whether the recording ends before its time.
    fn read(path: &Path) -> Result<(usize, bool), ReadError> {
        let (mut reader, _) = Reader::open(path)?;
        let mut frames = 0;
        while reader.next_frame()?.is_some() {
            frames += 1;
        }
        Ok((frames, reader.broken().is_some()))
    }

    #[test]
    fn what_was_flushed_is_read_however_the_file_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.rec");
        let mut writer = Writer::create(&path, false).unwrap();
        writer.write(&preamble()).unwrap();
        writer.write(&encode(&Frame::Header(Cow::Owned(header()))).unwrap()).unwrap();
        writer.flush().unwrap();
        // How long the file is when so many frames have been flushed.
        let mut flushed = vec![path.metadata().unwrap().len()];
        for at in 10..30 {
            writer.write(&encode(&Frame::LeftOut { at: BootNs(at), frames: at, events: at * at }).unwrap()).unwrap();
            writer.flush().unwrap();
            flushed.push(path.metadata().unwrap().len());
        }
        writer.write(&encode(&Frame::End { at: BootNs(40) }).unwrap()).unwrap();
        let length = writer.finish().unwrap();
        assert_eq!(read(&path).unwrap(), (21, false));
        let whole = std::fs::read(&path).unwrap();
        assert_eq!((whole.len() as u64, whole.starts_with(&GZIP)), (length, true));
        for cut in 0..length {
            std::fs::write(&path, &whole[..usize::try_from(cut).unwrap()]).unwrap();
            let before = flushed.iter().filter(|flushed| **flushed <= cut).count();
            match read(&path) {
                Ok((frames, broken)) => {
                    // The end of the file itself may be missing and every frame there.
                    assert!(frames + 1 >= before && (broken || frames == 21), "cut at {cut}: {frames}, {broken}");
                }
                Err(error) => assert!(before == 0, "cut at {cut}: {error}"),
            }
        }
    }

    #[test]
    fn flipped_bits_end_a_recording_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.rec");
        let mut writer = Writer::create(&path, false).unwrap();
        writer.write(&preamble()).unwrap();
        for frame in [Frame::Header(Cow::Owned(header())), Frame::End { at: BootNs(40) }] {
            writer.write(&encode(&frame).unwrap()).unwrap();
        }
        writer.finish().unwrap();
        let whole = std::fs::read(&path).unwrap();
        for bit in (0..8 * whole.len()).step_by(5) {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &flipped).unwrap();
            // A flip in what gzip does not look at changes nothing.
            if let Ok((frames, broken)) = read(&path) {
                assert!(frames == 1 || (frames == 0 && broken), "bit {bit}: {frames}, {broken}");
            }
        }
    }

    #[test]
    fn a_file_that_is_there_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.rec");
        std::fs::write(&path, "kept").unwrap();
        assert_eq!(Writer::create(&path, false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
        Writer::create(&path, true).unwrap().finish().unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
    }
}
