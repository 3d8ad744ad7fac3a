//! The description of the host's own API, generated from its handlers.
//!
//! Committed as `docs/reference/openapi.json`; a test holds the two together, so every change of the API shows in review.

use std::sync::OnceLock;

use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};

use crate::{
    endpoint_routes as endpoints, event_routes as events, host_routes as routes, job_routes as jobs,
    model_routes as models, prediction_routes as predictions, table_routes as tables,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Mainstay",
        description = "The host's own API. Paths that plugins claim are described by the plugins. Errors are problem documents (RFC 9457); `/-/problems` lists their kinds.",
        version = "0.1.0",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
        contact()
    ),
    paths(
        routes::describe_healthz, routes::describe_readyz, routes::describe_metrics,
        routes::version, routes::list_plugins, routes::plugin_info, routes::install_plugin, routes::configure_plugin,
        routes::remove_plugin, routes::list_tokens, routes::create_token, routes::revoke_token, routes::collect_garbage,
        routes::list_problems, routes::problem_info, routes::openapi,
        jobs::list_jobs, jobs::job_schema, jobs::apply_job, jobs::job_info, jobs::remove_job, jobs::pause_job,
        jobs::resume_job, jobs::backfill_job, jobs::list_runs, jobs::start_run, jobs::run_info, jobs::cancel_run,
        jobs::run_log, jobs::list_pools, jobs::set_pool,
        events::list_topics, events::read_topic, events::list_subscriptions, events::subscription_info, events::pause,
        events::resume, events::seek, events::dead_letters, events::retry, events::drop_letters,
        tables::list_tables, tables::table_info, tables::drop_table, tables::sql,
        predictions::list_logs, predictions::log_info, predictions::apply_log, predictions::post_predictions,
        predictions::post_outcomes, predictions::labelled,
        endpoints::list_endpoints, endpoints::endpoint_schema, endpoints::apply_endpoint, endpoints::endpoint_info,
        endpoints::remove_endpoint, endpoints::set_plan, endpoints::list_plans, endpoints::inject_fault,
        endpoints::withdraw_fault, endpoints::endpoint_signals, endpoints::assign, models::import_model
    ),
    security((), ("bearer" = []), ("basic" = [])),
    modifiers(&Schemes)
)]
struct Description;

struct Schemes;

impl utoipa::Modify for Schemes {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        components.add_security_scheme("basic", SecurityScheme::Http(Http::new(HttpAuthScheme::Basic)));
    }
}

/// The description, as JSON.
pub fn openapi_json() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    // The description is built of strings and maps, which always serialize.
    TEXT.get_or_init(|| Description::openapi().to_pretty_json().unwrap_or_default() + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_description_is_this_one() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/openapi.json");
        if std::env::var_os("MAINSTAY_BLESS").is_some() {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, openapi_json()).unwrap();
        }
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(committed == openapi_json(), "docs/reference/openapi.json is old; run this test with MAINSTAY_BLESS=1");
    }
}
