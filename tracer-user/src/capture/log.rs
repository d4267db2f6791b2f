//! What the kernel side logs on its rare paths, passed on to this process' log.

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::CaptureError;

pub(super) fn spawn(ebpf: &mut Ebpf) -> Result<(), CaptureError> {
    let error = |reason: String| CaptureError::Map { map: "AYA_LOGS", reason };
    let logger = EbpfLogger::init(ebpf).map_err(|reason| error(reason.to_string()))?;
    // SAFETY: the logger owns its descriptor for as long as it lives, and `AsyncFd` owns the logger.
    let logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
    let mut logger = logger.map_err(|reason| error(reason.to_string()))?;
    tokio::spawn(async move {
        // Ends with the runtime.
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
    Ok(())
}
