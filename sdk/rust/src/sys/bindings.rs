//! Generated from the WIT: all imports, and one part for each interface that a component may export.
//!
//! Nothing runs here. A plugin of one world must not export what another asks for, and what two worlds share must be
//! generated once; so the imports and `lifecycle` stand here, and each world's own export in a module of its own. What a
//! plugin's macros export is joined into one component. The records of `numeric` are the SDK's own types too: a dozen plain
//! results that nobody needs twice. Everything else stays inside [`sys`](super).
#![allow(unsafe_code, missing_docs, clippy::all, reason = "generated: the canonical ABI")]

wit_bindgen::generate!({
    inline: "
        package mainstay:sdk;
        world base {
            import mainstay:host/keys@0.1.0;
            import mainstay:host/index@0.1.0;
            import mainstay:host/directory@0.1.0;
            import mainstay:host/blobs@0.1.0;
            import mainstay:host/events@0.1.0;
            import mainstay:host/jobs@0.1.0;
            import mainstay:host/outbound@0.1.0;
            import mainstay:host/traffic@0.1.0;
            import mainstay:host/config@0.1.0;
            import mainstay:host/observe@0.1.0;
            import mainstay:host/clock@0.1.0;
            import mainstay:host/random@0.1.0;
            import mainstay:numeric/arrays@0.1.0;
            import mainstay:numeric/stats@0.1.0;
            import mainstay:numeric/models@0.1.0;
            import mainstay:api/http@0.1.0;
            import mainstay:data/tables@0.1.0;
            import mainstay:transform/batches@0.1.0;
            import mainstay:worker/work@0.1.0;
            import mainstay:fallback/asks@0.1.0;
            export mainstay:lifecycle/lifecycle@0.1.0;
        }
    ",
    world: "mainstay:sdk/base",
    path: ["../../wit/types", "../../wit/host", "../../wit/lifecycle", "../../wit/numeric", "../../wit/data", "../../wit/api", "../../wit/transform", "../../wit/worker", "../../wit/fallback"],
    generate_all,
    pub_export_macro: true,
    export_macro_name: "export_lifecycle",
    default_bindings_module: "mainstay_sdk::sys::bindings",
});

/// What world `api` exports.
pub mod api {
    wit_bindgen::generate!({
        inline: "package mainstay:sdk; world api { export mainstay:api/handler@0.1.0; }",
        world: "mainstay:sdk/api",
        path: ["../../wit/types", "../../wit/host", "../../wit/lifecycle", "../../wit/numeric", "../../wit/data", "../../wit/api", "../../wit/transform", "../../wit/worker", "../../wit/fallback"],
        with: {
            "mainstay:types/errors@0.1.0": super::mainstay::types::errors,
            "mainstay:host/keys@0.1.0": super::mainstay::host::keys,
            "mainstay:host/blobs@0.1.0": super::mainstay::host::blobs,
            "mainstay:api/http@0.1.0": super::mainstay::api::http,
            "mainstay:api/handler@0.1.0": generate,
        },
        pub_export_macro: true,
        export_macro_name: "export_handler",
        default_bindings_module: "mainstay_sdk::sys::bindings::api",
    });
}

/// What world `transform` exports.
pub mod transform {
    wit_bindgen::generate!({
        inline: "package mainstay:sdk; world transform { export mainstay:transform/transformer@0.1.0; }",
        world: "mainstay:sdk/transform",
        path: ["../../wit/types", "../../wit/host", "../../wit/lifecycle", "../../wit/numeric", "../../wit/data", "../../wit/api", "../../wit/transform", "../../wit/worker", "../../wit/fallback"],
        with: {
            "mainstay:types/errors@0.1.0": super::mainstay::types::errors,
            "mainstay:numeric/arrays@0.1.0": super::mainstay::numeric::arrays,
            "mainstay:transform/batches@0.1.0": super::mainstay::transform::batches,
            "mainstay:transform/transformer@0.1.0": generate,
        },
        pub_export_macro: true,
        export_macro_name: "export_transformer",
        default_bindings_module: "mainstay_sdk::sys::bindings::transform",
    });
}

/// What world `worker` exports.
pub mod worker {
    wit_bindgen::generate!({
        inline: "package mainstay:sdk; world worker { export mainstay:worker/duties@0.1.0; }",
        world: "mainstay:sdk/worker",
        path: ["../../wit/types", "../../wit/host", "../../wit/lifecycle", "../../wit/numeric", "../../wit/data", "../../wit/api", "../../wit/transform", "../../wit/worker", "../../wit/fallback"],
        with: {
            "mainstay:types/errors@0.1.0": super::mainstay::types::errors,
            "mainstay:host/keys@0.1.0": super::mainstay::host::keys,
            "mainstay:worker/work@0.1.0": super::mainstay::worker::work,
            "mainstay:worker/duties@0.1.0": generate,
        },
        pub_export_macro: true,
        export_macro_name: "export_duties",
        default_bindings_module: "mainstay_sdk::sys::bindings::worker",
    });
}

/// What world `fallback` exports.
pub mod fallback {
    wit_bindgen::generate!({
        inline: "package mainstay:sdk; world fallback { export mainstay:fallback/answers@0.1.0; }",
        world: "mainstay:sdk/fallback",
        path: ["../../wit/types", "../../wit/host", "../../wit/lifecycle", "../../wit/numeric", "../../wit/data", "../../wit/api", "../../wit/transform", "../../wit/worker", "../../wit/fallback"],
        with: {
            "mainstay:types/errors@0.1.0": super::mainstay::types::errors,
            "mainstay:host/tensors@0.1.0": super::mainstay::host::tensors,
            "mainstay:fallback/asks@0.1.0": super::mainstay::fallback::asks,
            "mainstay:fallback/answers@0.1.0": generate,
        },
        pub_export_macro: true,
        export_macro_name: "export_answers",
        default_bindings_module: "mainstay_sdk::sys::bindings::fallback",
    });
}

/// What a fallback that learns exports beside.
pub mod learns {
    wit_bindgen::generate!({
        inline: "package mainstay:sdk; world learns { export mainstay:fallback/learns@0.1.0; }",
        world: "mainstay:sdk/learns",
        path: ["../../wit/types", "../../wit/host", "../../wit/lifecycle", "../../wit/numeric", "../../wit/data", "../../wit/api", "../../wit/transform", "../../wit/worker", "../../wit/fallback"],
        with: {
            "mainstay:types/errors@0.1.0": super::mainstay::types::errors,
            "mainstay:host/tensors@0.1.0": super::mainstay::host::tensors,
            "mainstay:fallback/asks@0.1.0": super::mainstay::fallback::asks,
            "mainstay:fallback/learns@0.1.0": generate,
        },
        pub_export_macro: true,
        export_macro_name: "export_learns",
        default_bindings_module: "mainstay_sdk::sys::bindings::learns",
    });
}
