"""Writes what protobuf's own reader makes of each configuration here: `make.py`, with tritonclient installed.

Triton prints a configuration as this JSON with 64-bit numbers as numbers, where protobuf writes them as texts.
"""

import json
import pathlib

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2


def numbers(descriptor, value):
    """Undoes the texts that protobuf makes of 64-bit numbers."""
    for field in descriptor.fields:
        if field.name not in value:
            continue
        held = value[field.name]
        if field.message_type and field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"].message_type
            if inner:
                [numbers(inner, one) for one in held.values()]
        elif field.message_type:
            [numbers(field.message_type, one) for one in (held if isinstance(held, list) else [held])]
        elif field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64):
            value[field.name] = [int(one) for one in held] if isinstance(held, list) else int(held)


for path in sorted(pathlib.Path(__file__).parent.glob("*.pbtxt")):
    config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    value = json_format.MessageToDict(config, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    numbers(config.DESCRIPTOR, value)
    path.with_suffix(".json").write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    path.with_suffix(".bin").write_bytes(config.SerializeToString(deterministic=True))
