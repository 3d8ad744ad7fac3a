//! HTTP and gRPC: authentication, routes into plugins, admin API, telemetry.
//!
//! Owns every socket that clients reach. It parses, authenticates, checks the right that a route needs, and only then
//! calls a plugin through [`ApiTarget`]; bodies stream between the client and the blob store while no plugin instance
//! waits. Separate from the rooms below it because they must not know HTTP, and from the binary because it can be tested
//! with real sockets and a fake target. It knows no WebAssembly and no plugin by name: what a plugin may answer comes in
//! as [`PluginRoutes`], what an operator may do to plugins goes out through [`Admin`].
//!
//! Bounded by [`GatewayLimits`]: connections, requests in flight, bytes of buffered bodies, sizes and times of heads and
//! bodies. On failure: a mistake of the client is a 4xx problem document that says what to do; a mistake that is permanent
//! is never answered 429 or 5xx, because clients repeat those; a failing plugin fails its own request only.
#![forbid(unsafe_code)]

mod admin;
mod api;
mod auth;
mod body;
mod connection;
mod download;
mod endpoint_routes;
mod endpoint_shown;
mod event_routes;
mod exchange;
mod grpc;
mod host_routes;
mod inference_routes;
mod job_routes;
mod metrics;
mod model_routes;
mod openapi;
mod options;
mod path;
mod plugin_routes;
mod prediction_routes;
mod problem;
mod readiness;
mod rooms;
mod routes;
mod server;
mod table_routes;
mod tokens;
mod trace;
mod upload;

pub use admin::{Admin, BlobSweep, InstallUpload, PluginDetail, PluginSummary, RouteDetail, VersionInfo};
pub use api::{ApiFuture, ApiTarget};
pub use endpoint_routes::{EndpointChange, EndpointOrder, PlanOrder};
pub use job_routes::{
    BackfillOrder, JobHost, JobList, JobsAdmin, LogText, OWN_JOB_PREFIXES, RunList, RunOrder, RunStarted,
};
pub use mainstay_interfaces::{CallError, CallResult, Caller, Deadline, HttpReply, HttpRequest, RequestBody};
pub use metrics::SharedRegistry;
pub use model_routes::{ImportModels, ImportedModel, StoredModelFile};
pub use openapi::openapi_json;
pub use options::{AuthMode, GatewayLimits, GatewayOptions};
pub use prediction_routes::Posted;
pub use readiness::Readiness;
pub use rooms::Rooms;
pub use routes::{HOST_PATHS, HOST_PREFIXES, PluginRoutes, Right, RoutePath, RouteSpec, Routes};
pub use server::{Drained, Gateway, GatewayState};
pub use table_routes::{SqlOrder, TablesAdmin};
pub use tokens::{NewToken, Role, TokenInfo, Tokens};
pub use trace::{TraceContext, TraceHook};
