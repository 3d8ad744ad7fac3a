//! Turns `proto/` into Rust: the messages, client and server of the gRPC protocol, and a table of all messages' fields.
//!
//! The table drives what the generated messages cannot do themselves: reading configuration files and writing JSON.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build.rs");
    let files = protox::compile(["proto/grpc_service.proto"], ["proto"]).expect("the definitions in proto/ are valid");

    // Ordered maps, so that the same answer has the same bytes. Tensors as slices of what was received.
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo gives a folder"));
    let mut messages = Vec::new();
    let mut enums = Vec::new();
    for file in &files.file {
        let package = format!(".{}", file.package());
        file.enum_type.iter().for_each(|item| enums.push((format!("{package}.{}", item.name()), item)));
        let mut open: Vec<_> = file.message_type.iter().rev().map(|item| (package.clone(), item)).collect();
        while let Some((parent, item)) = open.pop() {
            let name = format!("{parent}.{}", item.name());
            item.enum_type.iter().for_each(|inner| enums.push((format!("{name}.{}", inner.name()), inner)));
            open.extend(item.nested_type.iter().map(|inner| (name.clone(), inner)));
            messages.push((name, item));
        }
    }
    let place = |names: Vec<&String>| -> HashMap<String, usize> {
        names.into_iter().enumerate().map(|(place, name)| (name.clone(), place)).collect()
    };
    let message_places = place(messages.iter().map(|(name, _)| name).collect());
    let enum_places = place(enums.iter().map(|(name, _)| name).collect());

    let mut code = String::from("pub(crate) static MESSAGES: &[Message] = &[\n");
    for (name, item) in &messages {
        let map_entry = item.options.as_ref().is_some_and(|options| options.map_entry());
        writeln!(code, "Message {{ name: {:?}, map_entry: {map_entry}, fields: &[", &name[1..]).expect("a string");
        for field in &item.field {
            // As `google.protobuf.FieldDescriptorProto.Type` numbers them.
            let kind = match field.r#type() as i32 {
                1 => "Kind::Double".to_owned(),
                2 => "Kind::Float".to_owned(),
                3 => "Kind::Int64".to_owned(),
                4 => "Kind::Uint64".to_owned(),
                5 => "Kind::Int32".to_owned(),
                8 => "Kind::Bool".to_owned(),
                9 => "Kind::String".to_owned(),
                11 => format!("Kind::Message({})", message_places[field.type_name()]),
                12 => "Kind::Bytes".to_owned(),
                13 => "Kind::Uint32".to_owned(),
                14 => format!("Kind::Enum({})", enum_places[field.type_name()]),
                other => panic!("`{}.{}` has a type ({other}) that the table does not know", name, field.name()),
            };
            let (field_name, number) = (field.name(), field.number());
            // As `google.protobuf.FieldDescriptorProto.Label` numbers it.
            let repeated = field.label() as i32 == 3;
            let oneof = field.oneof_index;
            writeln!(
                code,
                "Field {{ name: {field_name:?}, number: {number}, kind: {kind}, repeated: {repeated}, oneof: {oneof:?} }},"
            )
            .expect("a string");
        }
        code.push_str("] },\n");
    }
    code.push_str("];\n\npub(crate) static ENUMS: &[&[(&str, i32)]] = &[\n");
    for (_, item) in &enums {
        let values: Vec<_> = item.value.iter().map(|value| (value.name(), value.number())).collect();
        writeln!(code, "&{values:?},").expect("a string");
    }
    code.push_str("];\n");
    std::fs::write(out.join("schema.rs"), code).expect("the folder that cargo gave can be written to");

    tonic_prost_build::configure()
        .btree_map(".")
        .bytes(".inference")
        .compile_fds(files)
        .expect("the folder that cargo gave can be written to");
}
