//! How the control socket and the metrics ask the service: it receives a [`Call`] and answers
//! through the sender in it.

use super::protocol::{Request, Response, SocketQuery};
use crate::observe::{observation::Observation, report::LatencyReport, sockets::SocketsReport};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How long a caller waits for the service. It answers from the control thread, after at most a
/// worker's longest sleep; if it takes longer, something is stuck, and the caller should hear so.
const PATIENCE: Duration = Duration::from_secs(5);

/// Calls that may wait for the service: one from each connection the socket and the metrics allow.
const QUEUE: usize = 32;

/// Something the service is asked. Dropping the sender in it is an answer too: that it failed.
#[derive(Debug)]
pub enum Call {
    /// Gather everything there is to know.
    Observe(oneshot::Sender<Observation>),
    /// List connections and listeners.
    Sockets(SocketQuery, oneshot::Sender<SocketsReport>),
    /// Read the configuration again; the answer says what changed, or why nothing did.
    Reload(oneshot::Sender<Result<String, String>>),
    /// Drain and end; the answer comes before that.
    Stop(oneshot::Sender<()>),
}

/// The asking end; cheap to clone.
#[derive(Clone, Debug)]
pub struct ControlHandle(mpsc::Sender<Call>);

/// The two ends: one for servers, one for the service.
#[must_use]
pub fn calls() -> (ControlHandle, mpsc::Receiver<Call>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (ControlHandle(sender), receiver)
}

impl ControlHandle {
    /// Everything there is to know now.
    ///
    /// # Errors
    /// The service does not answer; the sentence says so.
    pub async fn observe(&self) -> Result<Observation, String> {
        self.call(Call::Observe).await
    }

    /// Carries out a request; a failure becomes an error response.
    pub async fn answer(&self, request: Request) -> Response {
        self.try_answer(request)
            .await
            .unwrap_or_else(Response::Error)
    }

    async fn try_answer(&self, request: Request) -> Result<Response, String> {
        Ok(match request {
            Request::Info => Response::Info(Box::new(self.observe().await?.info)),
            Request::Stats => Response::Stats(self.observe().await?.counters),
            Request::Latency => Response::Latency(LatencyReport::new(&self.observe().await?)),
            Request::Sockets(query) => {
                let ask = |answer| Call::Sockets(query, answer);
                Response::Sockets(self.call(ask).await?)
            }
            Request::Reload => Response::Done(self.call(Call::Reload).await??),
            Request::Stop => {
                self.call(Call::Stop).await?;
                Response::Done("draining".into())
            }
        })
    }

    async fn call<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> Call) -> Result<T, String> {
        let (sender, answer) = oneshot::channel();
        let asked_and_answered = async {
            self.0
                .send(call(sender))
                .await
                .map_err(|_| "the service is ending".to_owned())?;
            answer
                .await
                .map_err(|_| "the service gave no answer".to_owned())
        };
        match tokio::time::timeout(PATIENCE, asked_and_answered).await {
            Ok(answer) => answer,
            Err(_) => {
                let seconds = PATIENCE.as_secs();
                Err(format!("the service did not answer within {seconds} s"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_service_is_an_error() {
        let (handle, mut receiver) = calls();
        let Response::Error(error) = handle.answer(Request::Info).await else {
            panic!()
        };
        assert!(error.contains("did not answer within 5 s"), "{error}");

        let answering = tokio::spawn(async move {
            // The late call, then two that are dropped and refused.
            receiver.recv().await.unwrap();
            drop(receiver.recv().await.unwrap());
            let Some(Call::Reload(sender)) = receiver.recv().await else {
                panic!()
            };
            sender.send(Err("line 3: no".into())).unwrap();
        });
        let Response::Error(error) = handle.answer(Request::Stats).await else {
            panic!()
        };
        assert!(error.contains("gave no answer"), "{error}");
        let Response::Error(error) = handle.answer(Request::Reload).await else {
            panic!()
        };
        assert_eq!(error, "line 3: no");
        answering.await.unwrap();
        let Response::Error(error) = handle.answer(Request::Stop).await else {
            panic!()
        };
        assert!(error.contains("ending"), "{error}");
    }
}
