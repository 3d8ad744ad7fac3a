//! HTTP and gRPC: authentication, routes into plugins, admin API, telemetry.
