//! Running a model's graph: batches through transforms and models, without a hop out of the host.
//!
//! Owns [`ModelGraph`], a graph whose transforms and models are at hand, and the batcher in front of it: requests that arrive
//! together go through every node together, so a transform runs once for each batch. Nodes run on threads of their own,
//! which may wait for plugins and for kernels; neither of those ever waits for a graph, so nothing waits in a circle.
//!
//! Bounded by: [`BATCH_ROWS_MAX`], the queue of the batcher, the limits of the plugins. On failure: taking a graph in says
//! which node lacks what; a node that fails fails the requests of its batch, and names itself.

use std::collections::HashMap;
use std::sync::Arc;

use mainstay_arrays::{Column, Frame};
use mainstay_base::{Clock, Error, ErrorKind, Result};
use mainstay_kernels::batcher::{Ask, Batch, Batcher, Caller as Place, Crew, Kernel, Policy};
use mainstay_kernels::{Caller, HeldRows, Kernels, Loaded};
use mainstay_models::graph::{Graph, GraphInput, REQUEST, Step};
use mainstay_models::{Model, Output};

use crate::imports::batches::TransformBatch;
use crate::imports::models::in_order;
use crate::plugin::Plugin;

/// Rows that go through a graph together.
pub const BATCH_ROWS_MAX: usize = 4_096;

/// A graph, ready to run.
pub struct ModelGraph {
    digest: String,
    inputs: Vec<GraphInput>,
    nodes: Vec<Node>,
}

struct Node {
    name: String,
    inputs: Vec<String>,
    step: Ready,
}

enum Ready {
    Model(Arc<Loaded>),
    Transform { plugin: Arc<Plugin>, settings: String },
}

impl ModelGraph {
    /// Take a graph in: find its plugins in exactly their versions and let them check their settings, and find its models.
    /// `not-found` or `invalid` names the node.
    pub async fn take_in(
        graph: &Graph,
        plugin: impl Fn(&str) -> Option<Arc<Plugin>>,
        model: impl Fn(&str) -> Result<Arc<Loaded>>,
    ) -> Result<Arc<ModelGraph>> {
        let mut nodes = Vec::with_capacity(graph.nodes.len());
        for node in &graph.nodes {
            let step = match &node.step {
                Step::Model(file) => model(&file.sha256).map(Ready::Model),
                Step::Transform(transform) => ready(transform, &plugin).await,
            };
            let step = step.map_err(|error| at_node(&node.name, error))?;
            nodes.push(Node { name: node.name.clone(), inputs: node.inputs.clone(), step });
        }
        Ok(Arc::new(ModelGraph { digest: graph.digest(), inputs: graph.inputs.clone(), nodes }))
    }

    /// The digest of its document: the version of everything in it.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The columns that rows must have, as far as its document says.
    pub fn inputs(&self) -> &[GraphInput] {
        &self.inputs
    }

    /// Names of the columns of its answer, where the last node is a model; what transforms make only they know.
    pub fn outputs(&self) -> Vec<String> {
        match self.nodes.last().map(|node| &node.step) {
            Some(Ready::Model(model)) => output_names(model.model()).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    async fn run(&self, caller: &Caller, frame: &Frame, trace_id: &str) -> Result<Frame> {
        let mut made: HashMap<&str, Frame> = HashMap::from([(REQUEST, frame.clone())]);
        let mut last = frame.clone();
        for node in &self.nodes {
            let input = side_by_side(node.inputs.iter().filter_map(|name| made.get(name.as_str())))?;
            let outcome = node.run(caller, input, trace_id).await;
            last = outcome.map_err(|error| at_node(&node.name, error))?;
            made.insert(&node.name, last.clone());
        }
        Ok(last)
    }
}

async fn ready(
    transform: &mainstay_models::graph::Transform,
    plugin: &impl Fn(&str) -> Option<Arc<Plugin>>,
) -> Result<Ready> {
    let (name, version) = (&transform.plugin, &transform.version);
    let plugin = plugin(name)
        .ok_or_else(|| Error::not_found(format!("the plugin `{name}` does not run here; install version {version}")))?;
    if plugin.component_sha256() != transform.sha256 {
        return Err(Error::invalid(format!(
            "the plugin `{name}` runs with the component {} (version {}), and the graph was made with {} (version \
             {version}); install that version, or make the graph again",
            plugin.component_sha256(),
            plugin.version(),
            transform.sha256
        )));
    }
    let settings = serde_json::to_string(&transform.settings).map_err(|error| Error::internal(error.to_string()))?;
    plugin.check_settings(settings.clone()).await.map_err(of_call)?;
    Ok(Ready::Transform { plugin, settings })
}

fn of_call(error: mainstay_runtime::CallError) -> Error {
    Error::new(error.kind(), error.to_string())
}

fn at_node(name: &str, error: Error) -> Error {
    error.context(format_args!("node `{name}`"))
}

/// The columns of several frames in one; names must differ.
fn side_by_side<'f>(frames: impl Iterator<Item = &'f Frame>) -> Result<Frame> {
    Frame::new(frames.flat_map(|frame| frame.columns().iter().cloned()).collect())
}

impl Node {
    async fn run(&self, caller: &Caller, input: Frame, trace_id: &str) -> Result<Frame> {
        match &self.step {
            Ready::Model(model) => predict(caller, model, &input).await,
            Ready::Transform { plugin, settings } => {
                let (node, settings, trace_id) = (self.name.clone(), settings.clone(), trace_id.to_owned());
                plugin.transform(TransformBatch { frame: input, node, settings, trace_id }).await.map_err(of_call)
            }
        }
    }
}

async fn predict(caller: &Caller, model: &Arc<Loaded>, input: &Frame) -> Result<Frame> {
    let rows: HeldRows = in_order(model, input)?;
    let names = output_names(model.model())?;
    let values = caller.predict(model.clone(), rows, Output::Score).await?;
    let column = |at: usize| values.iter().skip(at).step_by(names.len()).copied().collect::<Vec<f64>>();
    let columns = names.iter().enumerate().map(|(at, name)| (name.as_str().into(), Column::f64(&column(at), None)));
    Frame::new(columns.collect())
}

/// What a model's scores are called behind it: `score`, or `score=CLASS` for each class.
fn output_names(model: &Model) -> Result<Vec<String>> {
    let width = model.width(Output::Score)?;
    Ok(match (width, model.classes()) {
        (1, _) => vec!["score".to_owned()],
        (_, classes) if classes.len() == width => classes.iter().map(|class| format!("score={class}")).collect(),
        _ => (0..width).map(|at| format!("score={at}")).collect(),
    })
}

/// Rows for a graph.
struct Request {
    graph: Arc<ModelGraph>,
    frame: Frame,
    trace_id: String,
}

/// The kernel of graphs.
struct Graphs {
    threads: tokio::runtime::Handle,
    caller: Caller,
}

impl Kernel for Graphs {
    /// Where the graph lies, and the names and types of what it is given.
    type Shape = (usize, String);
    type Request = Request;
    type Answer = Frame;

    fn name(&self) -> &str {
        "graph"
    }

    fn shape(&self, request: &Request) -> (usize, String) {
        let columns = request.frame.columns().iter();
        let schema: Vec<String> = columns.map(|(name, column)| format!("{name}:{}", column.value_type())).collect();
        (Arc::as_ptr(&request.graph).addr(), schema.join("\n"))
    }

    fn rows(&self, request: &Request) -> usize {
        request.frame.rows()
    }

    fn launch(&self, batch: &Batch<'_, Self>, answers: &mut Vec<Result<Frame>>) {
        let outcome = self.run(batch);
        let mut from = 0;
        answers.extend(batch.iter().map(|part| {
            let rows = part.rows.len();
            from += rows;
            outcome.as_ref().map_err(Error::clone)?.slice(from - rows, rows)
        }));
    }

    fn assemble(&self, _request: &Request, answers: Vec<Frame>) -> Result<Frame> {
        one_below_the_other(&answers)
    }
}

impl Graphs {
    fn run(&self, batch: &Batch<'_, Self>) -> Result<Frame> {
        let parts = batch.iter().map(|part| part.request.frame.slice(part.rows.start, part.rows.len()));
        let frame = one_below_the_other(&parts.collect::<Result<Vec<_>>>()?)?;
        let first = batch.iter().next().ok_or_else(|| Error::internal("a launch of nothing"))?.request;
        self.threads.block_on(first.graph.run(&self.caller, &frame, &first.trace_id))
    }
}

fn one_below_the_other(frames: &[Frame]) -> Result<Frame> {
    let [first, rest @ ..] = frames else { return Ok(Frame::default()) };
    if rest.is_empty() {
        return Ok(first.clone());
    }
    let columns = first.columns().iter().map(|(name, _)| {
        let all = frames.iter().map(|frame| frame.column(name).cloned()).collect::<Result<Vec<_>>>()?;
        Ok((name.clone(), Column::concat(&all)?))
    });
    Frame::new(columns.collect::<Result<_>>()?)
}

/// What runs graphs. Cheap to clone.
#[derive(Clone)]
pub struct GraphRunner {
    place: Place<Graphs>,
    _crew: Arc<Crew>,
}

impl GraphRunner {
    /// With `threads` threads that wait for nodes; nodes themselves run where plugins and kernels do.
    pub fn start(
        plugins: &tokio::runtime::Handle,
        kernels: &Kernels,
        threads: usize,
        clock: Arc<dyn Clock>,
    ) -> Result<GraphRunner> {
        let crew = Crew::start(threads, clock)?;
        let graphs = Graphs { threads: plugins.clone(), caller: kernels.caller("graph")? };
        let policy = Policy { max_rows: BATCH_ROWS_MAX, max_launches: threads, ..Policy::default() };
        let place = Batcher::new(graphs, policy, &crew)?.caller("requests", 1)?;
        Ok(GraphRunner { place, _crew: Arc::new(crew) })
    }

    /// One request's rows through a graph, in a batch with others that came at the same time.
    pub async fn run(&self, graph: &Arc<ModelGraph>, frame: Frame, trace_id: &str) -> Result<Frame> {
        if frame.columns().is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "a request without columns; give the model's features"));
        }
        let request = Request { graph: graph.clone(), frame, trace_id: trace_id.to_owned() };
        Ok(self.place.submit(request, Ask::default())?.await?)
    }
}
