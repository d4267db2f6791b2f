//! /metrics over TCP, for those who scrape from elsewhere: nothing but counts, to whoever asks.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::routes;
use super::server::{ACCEPT_AGAIN_AFTER, builder};
use crate::daemon::handle::Handle;

/// Connections at once; one more is closed.
const CONNECTIONS_MAX: usize = 8;

/// The address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics at {address}: {error}: give another address with --metrics or api.metrics_addr")]
pub struct BindError {
    address: SocketAddr,
    error: io::Error,
}

/// Listens there.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|error| BindError { address, error })
}

/// Serves until the handle says that the daemon stops.
pub async fn serve(listener: TcpListener, handle: Handle) {
    let router = routes::metrics_router(handle.clone());
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = handle.stopping() => break,
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                        let router = router.clone();
                        connections.spawn(async move {
                            answer(stream, router).await;
                            drop(place);
                        });
                    }
                }
                Err(error) => {
                    tracing::warn!("the address of the metrics cannot accept: {error}");
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn answer(stream: TcpStream, router: axum::Router) {
    let connection = builder().serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = connection.await {
        // A scraper that went away in the middle is no one's fault.
        tracing::debug!("a scrape ended: {error}");
    }
}
