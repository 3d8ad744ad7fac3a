//! Servers that speak the protocol well: the house's own fronts before a model that gives back what it gets.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use mainstay_base::{Error, Result};
use mainstay_inference::*;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

/// Gives inputs back as outputs. Models: `slow` never answers, `busy` is unavailable, `wrong` is invalid, `broken` fails. Streams give
/// each word of the text apart; the word `fail` fails, the word `wait` never comes.
pub struct Echo {
    /// Who asked.
    askers: UnboundedSender<Asker>,
    /// Whatever runs tells that it ended, in whichever way.
    ended: Arc<dyn Fn() + Send + Sync>,
}

struct Tell(Arc<dyn Fn() + Send + Sync>);

impl Drop for Tell {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[async_trait::async_trait]
impl Models for Echo {
    async fn ready(&self) -> bool {
        true
    }

    async fn model_ready(&self, _: &Asker, model: &str, _: Option<&str>) -> Result<bool> {
        match model {
            "missing" => Err(Error::not_found("no such model")),
            "busy" => Ok(false),
            _ => Ok(true),
        }
    }

    async fn server(&self) -> Result<ServerMetadata> {
        Ok(ServerMetadata::default())
    }

    async fn metadata(&self, _: &Asker, model: &str, _: Option<&str>) -> Result<ModelMetadata> {
        let inputs = vec![TensorSpec::new("text_input", Datatype::Bytes, &[1])];
        let outputs = vec![TensorSpec::new("word", Datatype::Bytes, &[1]), TensorSpec::new("n", Datatype::Int8, &[1])];
        Ok(Signature { inputs, outputs, max_batch: 0 }.metadata(model, vec!["3".into()], "echo"))
    }

    async fn infer(&self, asker: Asker, request: InferRequest) -> Result<Answered> {
        let _tell = Tell(self.ended.clone());
        let _ = self.askers.send(asker);
        match request.model.as_str() {
            "slow" => std::future::pending().await,
            "busy" => Err(Error::unavailable("try later")),
            "wrong" => Err(Error::invalid("this makes no sense")),
            "broken" => Err(Error::internal("it broke")),
            _ => {
                let version = request.version.unwrap_or_else(|| "3".into());
                let answer = InferAnswer {
                    model: request.model,
                    version,
                    outputs: request.inputs,
                    parameters: request.parameters,
                };
                Ok(answer.into())
            }
        }
    }

    async fn infer_stream(&self, asker: Asker, request: InferRequest) -> Result<Answers> {
        let tell = Tell(self.ended.clone());
        let _ = self.askers.send(asker);
        let text = request.input("text_input").ok_or_else(|| Error::invalid("no text_input"))?.strings()?;
        let text = String::from_utf8_lossy(text[0]).into_owned();
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let answers = futures::stream::iter(words.into_iter().enumerate()).then(move |(place, word)| {
            let _ = &tell;
            let model = request.model.clone();
            async move {
                match word.as_str() {
                    "fail" => return Err(Error::internal("it broke in the middle")),
                    "wait" => tokio::time::sleep(Duration::from_secs(3600)).await,
                    _ => {}
                }
                let outputs = vec![Tensor::bytes("word", &[1], [word])?, Tensor::int8("n", &[1], &[place as i8])?];
                let answer = InferAnswer { model, version: "3".into(), parameters: vec![], outputs };
                Ok(Answered { last: false, ..answer.into() })
            }
        });
        Ok(answers.boxed())
    }
}

/// A server of [`Echo`], there until this is dropped.
pub struct Behaved {
    pub address: SocketAddr,
    pub askers: tokio::sync::mpsc::UnboundedReceiver<Asker>,
    pub ended: tokio::sync::mpsc::UnboundedReceiver<std::time::Instant>,
    task: JoinHandle<()>,
}

impl Drop for Behaved {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Http,
    Grpc,
}

impl Behaved {
    pub async fn start(speaks: Speaks) -> Behaved {
        Behaved::start_with(speaks, |stream| async { Some(stream) }).await
    }

    /// With something around each connection, such as TLS.
    pub async fn start_with<S, F>(
        speaks: Speaks,
        wrap: impl Fn(tokio::net::TcpStream) -> F + Send + Sync + 'static,
    ) -> Behaved
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        F: Future<Output = Option<S>> + Send + 'static,
    {
        let (askers, seen) = unbounded_channel();
        let (told, ended) = crate::support::moments();
        let models: Arc<dyn Models> = Arc::new(Echo { askers, ended: Arc::new(told) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            // Dropped with the task: then its connections are closed.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (models, wrapped) = (models.clone(), wrap(stream));
                connections.spawn(async move {
                    let Some(stream) = wrapped.await else { return };
                    serve(speaks, models, stream).await;
                });
            }
        });
        Behaved { address, askers: seen, ended, task }
    }

    pub fn url(&self, scheme: &str, model: &str) -> String {
        format!("{scheme}://{}/v2/models/{model}", self.address)
    }
}

async fn serve(speaks: Speaks, models: Arc<dyn Models>, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
    let io = TokioIo::new(stream);
    match speaks {
        Speaks::Http => {
            let front = Front::new(models, Limits::default());
            let service = service_fn(move |request| {
                let front = front.clone();
                async move { Ok::<_, Infallible>(front.answer(request, Asker::default()).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
        }
        Speaks::Grpc => {
            let service = TowerToHyperService::new(Grpc::service(models, Limits::default()));
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(io, service).await;
        }
    }
}
