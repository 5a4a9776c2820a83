//! Metrics over HTTP, for Prometheus: `GET /metrics` on a TCP address of the kernel's stack.

use super::calls::ControlHandle;
use crate::observe::prometheus;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

/// Connections at one time; more wait. Prometheus keeps one for each replica.
const CONNECTIONS_MAX: usize = 16;

/// How long a client may take to send its request line and headers. Scrapers keep connections open
/// between scrapes, usually 15 s to 60 s apart, and reconnect when closed.
const HEADERS_MAX: Duration = Duration::from_secs(90);

/// The listening socket.
#[derive(Debug)]
pub struct MetricsServer(TcpListener);

impl MetricsServer {
    /// Listens at `address`; port 0 lets the kernel choose. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The address is not ours or taken; the error names it.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen at {address}: {error}"))
        })?;
        Ok(Self(listener))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers scrapes until it is dropped, together with its connections.
    pub async fn serve(self, handle: ControlHandle) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let permit = Arc::clone(&room).acquire_owned().await;
            while connections.try_join_next().is_some() {}
            match self.0.accept().await {
                Ok((stream, _)) => {
                    let handle = handle.clone();
                    connections.spawn(async move {
                        let service = service_fn(|request| answer(request, handle.clone()));
                        let served = http1::Builder::new()
                            .timer(TokioTimer::new())
                            .header_read_timeout(HEADERS_MAX)
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                        if let Err(error) = served {
                            tracing::debug!(%error, "a metrics connection broke");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of file descriptors: that does not pass by asking again at once.
                    tracing::warn!(%error, "cannot accept a metrics connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    handle: ControlHandle,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let known = request.uri().path() == "/metrics";
    let read = matches!(*request.method(), Method::GET | Method::HEAD);
    Ok(match (known, read) {
        (false, _) => plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n".into()),
        (true, false) => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
            response
                .headers_mut()
                .insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
            response
        }
        (true, true) => match handle.observe().await {
            Ok(observation) => {
                let text = prometheus::encode(observation);
                typed(StatusCode::OK, prometheus::CONTENT_TYPE, text)
            }
            Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
        },
    })
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", text)
}

fn typed(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
