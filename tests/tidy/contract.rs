//! The WIT: every item is documented, says since when, what it costs and how it fails, and the reference generated from it is
//! committed.

use crate::{refuse, root};
use std::fmt::Write;
use wit_parser::{
    Docs, Function, FunctionKind, Handle, Interface, Resolve, Type, TypeDef, TypeDefKind, TypeId, TypeOwner, WorldItem,
    WorldKey,
};

/// In the order in which each may use those before it.
const PACKAGES: &[&str] = &["types", "host", "lifecycle", "numeric", "data", "api", "transform", "worker", "fallback"];

fn resolve() -> Resolve {
    let mut resolve = Resolve::default();
    for package in PACKAGES {
        let folder = root().join("wit").join(package);
        resolve.push_dir(&folder).unwrap_or_else(|error| panic!("wit/{package}: {error:#}"));
    }
    resolve
}

#[test]
fn every_folder_of_the_contract_is_read() {
    let mut folders: Vec<String> = std::fs::read_dir(root().join("wit"))
        .expect("wit/ is there")
        .map(|entry| entry.expect("it can be listed").file_name().to_string_lossy().into_owned())
        .collect();
    folders.sort();
    let mut known: Vec<&str> = PACKAGES.to_vec();
    known.sort_unstable();
    assert_eq!(folders, known, "add the package to PACKAGES");
}

#[test]
fn every_item_is_documented_and_says_since_when() {
    let resolve = resolve();
    let mut problems = Vec::new();
    for (_, interface) in &resolve.interfaces {
        let name = interface_name(&resolve, interface);
        let is_frozen = says(&interface.docs, "Frozen");
        // One package has one interface, and then its header speaks for both.
        let has_header = interface.package.is_some_and(|package| text(&resolve.packages[package].docs).is_some());
        if text(&interface.docs).is_none() && !has_header {
            problems.push(format!("{name}: no documentation"));
        }
        for (type_name, id) in &interface.types {
            let definition = &resolve.types[*id];
            if is_alias(definition) {
                continue;
            }
            let is_resource = matches!(definition.kind, TypeDefKind::Resource);
            check_docs(&mut problems, &format!("{name}.{type_name}"), &definition.docs, is_resource && !is_frozen);
            for (part, docs) in parts(&definition.kind) {
                let part = format!("{name}.{type_name}.{part}");
                check_docs(&mut problems, &part, docs, false);
                check_unit(&mut problems, &part, docs);
            }
        }
        for (function_name, function) in &interface.functions {
            let is_free = matches!(function.kind, FunctionKind::Freestanding | FunctionKind::AsyncFreestanding);
            let function_name = format!("{name}.{function_name}");
            check_docs(&mut problems, &function_name, &function.docs, is_free && !is_frozen);
            check_unit(&mut problems, &function_name, &function.docs);
        }
    }
    for (_, world) in &resolve.worlds {
        check_docs(&mut problems, &format!("world {}", world.name), &world.docs, false);
    }
    refuse(
        "every item of the contract is documented; functions and resources say `Since x.y.z` (or `Frozen`)",
        &problems,
    );
}

fn check_docs(problems: &mut Vec<String>, name: &str, docs: &Docs, must_say_since: bool) {
    if text(docs).is_none() {
        problems.push(format!("{name}: no documentation"));
    } else if must_say_since && !says(docs, "Since ") && !says(docs, "Frozen") {
        problems.push(format!("{name}: neither `Since` nor `Frozen`"));
    }
}

/// Fields of a record, cases of a variant or an enumeration, flags.
fn parts(kind: &TypeDefKind) -> Vec<(&str, &Docs)> {
    match kind {
        TypeDefKind::Record(record) => record.fields.iter().map(|field| (&*field.name, &field.docs)).collect(),
        TypeDefKind::Variant(variant) => variant.cases.iter().map(|case| (&*case.name, &case.docs)).collect(),
        TypeDefKind::Enum(kinds) => kinds.cases.iter().map(|case| (&*case.name, &case.docs)).collect(),
        TypeDefKind::Flags(flags) => flags.flags.iter().map(|flag| (&*flag.name, &flag.docs)).collect(),
        _ => Vec::new(),
    }
}

/// What is named after a unit says it in full.
fn check_unit(problems: &mut Vec<String>, name: &str, docs: &Docs) {
    for (ending, word) in [("-ms", "milliseconds"), ("-ns", "nanoseconds"), ("-bytes", "bytes")] {
        if name.ends_with(ending) && !text(docs).is_some_and(|text| text.to_lowercase().contains(word)) {
            problems.push(format!("{name}: the documentation does not say {word}"));
        }
    }
}

/// What plugins call says what it costs and, if it can fail, how. A sentence that starts with `Cost: ` or `Errors: ` in the
/// documentation of an interface speaks for all of its functions and methods; those that differ say so themselves.
#[test]
fn what_plugins_call_says_what_it_costs_and_how_it_fails() {
    let resolve = resolve();
    let mut problems = Vec::new();
    let mut functions = 0;
    let imports = resolve.worlds.iter().flat_map(|(_, world)| world.imports.values());
    for item in imports {
        let WorldItem::Interface { id, .. } = item else { continue };
        let interface = &resolve.interfaces[*id];
        let name = interface_name(&resolve, interface);
        let says_either = |docs: &Docs, word: &str| says(docs, word) || says(&interface.docs, word);
        for (function_name, function) in &interface.functions {
            functions += 1;
            if !says_either(&function.docs, "Cost: ") {
                problems.push(format!("{name}.{function_name}: no `Cost: `, nor has the interface"));
            }
            if can_fail(&resolve, function) && !says_either(&function.docs, "Errors: ") {
                problems.push(format!("{name}.{function_name}: no `Errors: `, nor has the interface"));
            }
        }
    }
    assert!(functions > 40, "the worlds import only {functions} functions");
    refuse("what plugins call says what it costs and how it fails", &problems);
}

fn can_fail(resolve: &Resolve, function: &Function) -> bool {
    let Some(Type::Id(id)) = &function.result else { return false };
    matches!(&resolve.types[*id].kind, TypeDefKind::Result(result) if result.err.is_some())
}

#[test]
fn the_committed_wit_reference_is_this_one() {
    let path = root().join("docs/reference/wit.md");
    let fresh = reference(&resolve());
    if std::env::var_os("MAINSTAY_BLESS").is_some() {
        std::fs::write(&path, &fresh).expect("docs/reference can be written to");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == fresh, "docs/reference/wit.md is old; run `cargo xtask docs` and commit it");
}

#[test]
fn the_crates_that_generate_bindings_read_the_same_packages() {
    let expect: Vec<String> = PACKAGES.iter().map(|package| format!("\"../../wit/{package}\"")).collect();
    for file in ["host/bindings/src/lib.rs", "sdk/rust/src/sys/bindings.rs"] {
        let text = std::fs::read_to_string(root().join(file)).expect("the bindings are there");
        assert!(
            text.contains(&format!("path: [{}]", expect.join(", "))),
            "{file} reads other packages of the contract"
        );
    }
}

fn text(docs: &Docs) -> Option<&str> {
    docs.contents.as_deref().map(str::trim).filter(|text| !text.is_empty())
}

fn says(docs: &Docs, word: &str) -> bool {
    text(docs).is_some_and(|text| text.contains(word))
}

/// A `use` of another interface's type.
fn is_alias(definition: &TypeDef) -> bool {
    matches!(definition.kind, TypeDefKind::Type(Type::Id(_)))
}

fn interface_name(resolve: &Resolve, interface: &Interface) -> String {
    let name = interface.name.as_deref().unwrap_or("?");
    match interface.package {
        Some(package) => resolve.packages[package].name.interface_id(name),
        None => name.to_owned(),
    }
}

// ---- the reference ----

fn reference(resolve: &Resolve) -> String {
    let mut out = String::from(
        "# The contract\n\n<!-- Generated from wit/ and its comments. -->\n\nWhat a plugin may ask of the \
         host, and what it must answer. How it grows without breaking anybody is in [versioning](../wit-versioning.md).\n",
    );
    for folder in PACKAGES {
        let package = package_of(resolve, folder);
        let package = &resolve.packages[package];
        writeln!(out, "\n## Package `{}`", package.name).unwrap();
        paragraph(&mut out, &package.docs);
        for (_, id) in &package.interfaces {
            interface(&mut out, resolve, &resolve.interfaces[*id]);
        }
        for (_, id) in &package.worlds {
            world(&mut out, resolve, *id);
        }
    }
    out
}

fn package_of(resolve: &Resolve, folder: &str) -> wit_parser::PackageId {
    let found = resolve.packages.iter().find(|(_, package)| package.name.name == folder);
    found.unwrap_or_else(|| panic!("wit/{folder} declares another package")).0
}

fn paragraph(out: &mut String, docs: &Docs) {
    if let Some(text) = text(docs) {
        writeln!(out, "\n{}", escaped(text)).unwrap();
    }
}

/// Markdown would take `<name>` for a tag outside of code.
fn escaped(text: &str) -> String {
    let mut parts = text.split('`').enumerate();
    let first = parts.next().map(|(_, part)| part.replace('<', "\\<")).unwrap_or_default();
    parts.fold(first, |mut all, (at, part)| {
        all.push('`');
        all.push_str(&if at % 2 == 0 { part.replace('<', "\\<") } else { part.to_owned() });
        all
    })
}

fn interface(out: &mut String, resolve: &Resolve, interface: &Interface) {
    writeln!(out, "\n### Interface `{}`", interface_name(resolve, interface)).unwrap();
    paragraph(out, &interface.docs);
    let used: Vec<String> = interface
        .types
        .iter()
        .filter(|(_, id)| is_alias(&resolve.types[**id]))
        .map(|(name, id)| used_from(resolve, name, *id))
        .collect();
    if !used.is_empty() {
        writeln!(out, "\nUses {}.", used.join(", ")).unwrap();
    }
    for (name, id) in &interface.types {
        if !is_alias(&resolve.types[*id]) {
            type_definition(out, resolve, interface, name, *id);
        }
    }
    for (name, function) in &interface.functions {
        if matches!(function.kind, FunctionKind::Freestanding | FunctionKind::AsyncFreestanding) {
            writeln!(out, "\n#### `{name}`\n\n```wit\n{name}: {}\n```", signature(resolve, function)).unwrap();
            paragraph(out, &function.docs);
        }
    }
}

fn used_from(resolve: &Resolve, name: &str, id: TypeId) -> String {
    let TypeDefKind::Type(Type::Id(of)) = resolve.types[id].kind else { return format!("`{name}`") };
    match resolve.types[of].owner {
        TypeOwner::Interface(owner) => format!("`{name}` of `{}`", interface_name(resolve, &resolve.interfaces[owner])),
        _ => format!("`{name}`"),
    }
}

fn type_definition(out: &mut String, resolve: &Resolve, interface: &Interface, name: &str, id: TypeId) {
    let definition = &resolve.types[id];
    let named = |ty: &Type| type_name(resolve, ty);
    let rows: Vec<(String, &Docs)> = match &definition.kind {
        TypeDefKind::Record(record) => {
            record.fields.iter().map(|field| (format!("{}: {}", field.name, named(&field.ty)), &field.docs)).collect()
        }
        TypeDefKind::Variant(variant) => variant
            .cases
            .iter()
            .map(|case| {
                (case.ty.as_ref().map_or(case.name.clone(), |ty| format!("{}({})", case.name, named(ty))), &case.docs)
            })
            .collect(),
        TypeDefKind::Enum(kinds) => kinds.cases.iter().map(|case| (case.name.clone(), &case.docs)).collect(),
        TypeDefKind::Flags(flags) => flags.flags.iter().map(|flag| (flag.name.clone(), &flag.docs)).collect(),
        TypeDefKind::Resource => interface
            .functions
            .values()
            .filter(|function| function.kind.resource() == Some(id))
            .map(|function| method(resolve, function))
            .collect(),
        other => panic!("a type of the contract is {other:?}, which the reference cannot show yet"),
    };
    writeln!(out, "\n#### {} `{name}`", definition.kind.as_str()).unwrap();
    paragraph(out, &definition.docs);
    writeln!(out).unwrap();
    for (row, docs) in rows {
        let words = text(docs).map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
        let words = words.map(|words| format!(" — {}", escaped(&words))).unwrap_or_default();
        writeln!(out, "- `{row}`{words}").unwrap();
    }
}

fn method<'a>(resolve: &Resolve, function: &'a Function) -> (String, &'a Docs) {
    let kind = match function.kind {
        FunctionKind::Static(_) | FunctionKind::AsyncStatic(_) => "static ",
        FunctionKind::Constructor(_) => "constructor ",
        _ => "",
    };
    (format!("{}: {kind}{}", function.item_name(), signature(resolve, function)), &function.docs)
}

fn signature(resolve: &Resolve, function: &Function) -> String {
    let is_method = matches!(function.kind, FunctionKind::Method(_) | FunctionKind::AsyncMethod(_));
    let skipped = usize::from(is_method);
    let params = function.params.iter().skip(skipped);
    let params: Vec<String> =
        params.map(|param| format!("{}: {}", param.name, type_name(resolve, &param.ty))).collect();
    let result = function.result.as_ref().map(|ty| format!(" -> {}", type_name(resolve, ty))).unwrap_or_default();
    format!("func({}){result}", params.join(", "))
}

fn type_name(resolve: &Resolve, ty: &Type) -> String {
    let Type::Id(id) = ty else { return primitive(ty).to_owned() };
    let definition = &resolve.types[*id];
    if let Some(name) = &definition.name {
        return name.clone();
    }
    let named = |ty: &Type| type_name(resolve, ty);
    let or_none = |ty: &Option<Type>| ty.as_ref().map_or("_".to_owned(), named);
    match &definition.kind {
        TypeDefKind::Option(inner) => format!("option<{}>", named(inner)),
        TypeDefKind::List(inner) => format!("list<{}>", named(inner)),
        TypeDefKind::Tuple(tuple) => format!("tuple<{}>", tuple.types.iter().map(named).collect::<Vec<_>>().join(", ")),
        TypeDefKind::Result(result) => format!("result<{}, {}>", or_none(&result.ok), or_none(&result.err)),
        TypeDefKind::Handle(Handle::Own(of)) => named(&Type::Id(*of)),
        TypeDefKind::Handle(Handle::Borrow(of)) => format!("borrow<{}>", named(&Type::Id(*of))),
        other => panic!("a type of the contract is {other:?}, which the reference cannot show yet"),
    }
}

fn primitive(ty: &Type) -> &'static str {
    match ty {
        Type::Bool => "bool",
        Type::U8 => "u8",
        Type::U16 => "u16",
        Type::U32 => "u32",
        Type::U64 => "u64",
        Type::S8 => "s8",
        Type::S16 => "s16",
        Type::S32 => "s32",
        Type::S64 => "s64",
        Type::F32 => "f32",
        Type::F64 => "f64",
        Type::Char => "char",
        Type::String => "string",
        Type::ErrorContext => "error-context",
        Type::Id(_) => unreachable!("it was asked before"),
    }
}

fn world(out: &mut String, resolve: &Resolve, id: wit_parser::WorldId) {
    let world = &resolve.worlds[id];
    writeln!(out, "\n### World `{}`", world.name).unwrap();
    paragraph(out, &world.docs);
    let names = |items: &wit_parser::IndexMap<WorldKey, WorldItem>| -> Vec<String> {
        items.keys().map(|key| format!("- `{}`", resolve.name_world_key(key))).collect()
    };
    writeln!(
        out,
        "\nImports:\n\n{}\n\nExports:\n\n{}",
        names(&world.imports).join("\n"),
        names(&world.exports).join("\n")
    )
    .unwrap();
}

#[test]
fn markdown_does_not_take_placeholders_for_tags() {
    assert_eq!(escaped("a <b> `c<d>` <e>"), "a \\<b> `c<d>` \\<e>");
}

/// The reference shows one type's fields; a place where a reader would look is enough to hold its form.
#[test]
fn the_reference_shows_signatures_and_fields() {
    let shown = reference(&resolve());
    for line in [
        "- `start: list<u8>`",
        "get: func(key: list<u8>) -> result<option<list<u8>>, error>",
        "- `commit: static func(tx: transaction) -> result<receipt, error>` — Make the changes.",
        "link: func(tx: borrow<transaction>, name: string, sha256: string) -> result<_, error>",
        "- `mainstay:host/keys@0.1.0`",
    ] {
        assert!(shown.contains(line), "{line}\nis not in\n{shown}");
    }
}
