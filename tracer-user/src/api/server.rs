//! The accept loop: bounded connections, checked peers, an end that lets answers finish.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::peer::Gate;
use super::routes;
use super::socket::Socket;
use crate::daemon::handle::Handle;

/// Connections served at once.
pub const CONNECTIONS_MAX: usize = 64;
/// Connections being told that there is no place for them; more are just closed.
const REFUSALS_MAX: usize = 16;
/// How long a refused connection may take to hear it.
const REFUSAL_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection may be without a request.
const REQUEST_WITHIN: Duration = Duration::from_secs(30);
/// How long answers may take to finish once the daemon stops.
const FINISH_WITHIN: Duration = Duration::from_secs(2);
/// Largest request head.
const REQUEST_BYTES_MAX: usize = 32 << 10;
/// How long to leave the kernel alone after it could not accept (no descriptors left).
pub(super) const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Serves until the handle says that the daemon stops; the socket's file is gone when it returns.
pub async fn serve(socket: Socket, handle: Handle) {
    let listener = match socket.listen() {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("nobody can be answered on the control socket: {error}"),
    };
    let gate = Gate::new(socket.group);
    let router = routes::router(handle.clone());
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = handle.stopping() => break,
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                        let (router, handle) = (router.clone(), handle.clone());
                        connections.spawn(async move {
                            admit(stream, gate, router, &handle).await;
                            drop(place);
                        });
                    } else if let Ok(place) = Arc::clone(&refusals).try_acquire_owned() {
                        connections.spawn(async move {
                            refuse(stream, StatusCode::SERVICE_UNAVAILABLE, FULL).await;
                            drop(place);
                        });
                    }
                }
                Err(error) => {
                    tracing::warn!("the control socket cannot accept: {error}");
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                }
            },
        }
    }
    drop((socket, listener));
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(FINISH_WITHIN, finish).await.is_err() {
        tracing::debug!("{} clients did not read to the end", connections.len());
    }
    connections.shutdown().await;
}

const FULL: &str = "64 clients are connected, which is the most there may be: close one and try again";
const STRANGER: &str = "this user may not ask: be root or a member of the socket's group";

async fn admit(stream: UnixStream, gate: Gate, router: Router, handle: &Handle) {
    let admitted = match stream.peer_cred() {
        Ok(peer) => gate.admits(peer).await,
        Err(_) => false,
    };
    if !admitted {
        return refuse(stream, StatusCode::FORBIDDEN, STRANGER).await;
    }
    let connection = builder().serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = handle.stopping() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // A client that went away in the middle is no one's fault.
        tracing::debug!("a client's connection ended: {error}");
    }
}

async fn refuse(stream: UnixStream, status: StatusCode, sentence: &'static str) {
    let service = TowerToHyperService::new(routes::refusal(status, sentence));
    let mut builder = builder();
    let connection = builder.keep_alive(false).serve_connection(TokioIo::new(stream), service);
    if tokio::time::timeout(REFUSAL_WITHIN, connection).await.is_err() {
        tracing::debug!("a refused client asked nothing");
    }
}

/// Bounded in what a head may take, in bytes and in time.
pub(super) fn builder() -> hyper::server::conn::http1::Builder {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(REQUEST_WITHIN).max_buf_size(REQUEST_BYTES_MAX);
    builder
}
