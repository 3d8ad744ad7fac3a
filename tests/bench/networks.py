"""ONNX graphs beyond our own operations beside onnxruntime, in one run on one thread.

Three graphs: dense layers, convolutions, one attention block. Our side runs them by the runtime in the binary, in this process
and in a child; and by the peer's own library, in a child, as a host that was told of it does. Prints a Markdown table, and with
`--write` puts it into docs/performance.md.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import tables

SECONDS = 1.0
BATCHES = [1, 16, 256]
random = np.random.default_rng(7)


def weights(name, *shape):
    scale = np.sqrt(1 / np.prod(shape[1:] if len(shape) == 4 else shape[:1]))
    return numpy_helper.from_array((random.standard_normal(shape) * scale).astype(np.float32), name)


def save(path, nodes, constants, row, width):
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *row])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", width])]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return row


def dense(path):
    node, nodes, constants, width = "x", [], [], 30
    for layer, to in enumerate([256, 256, 1]):
        nodes.append(helper.make_node("Gemm", [node, f"w{layer}", f"b{layer}"], [f"g{layer}"]))
        nodes.append(helper.make_node("Softplus" if layer == 2 else "Relu", [f"g{layer}"], ["y" if layer == 2 else f"r{layer}"]))
        constants += [weights(f"w{layer}", width, to), weights(f"b{layer}", to)]
        node, width = f"r{layer}", to
    return save(path, nodes, constants, [30], 1)


def convolutions(path):
    nodes, node = [], "x"
    for layer in range(2):
        nodes.append(helper.make_node("Conv", [node, f"k{layer}", f"c{layer}"], [f"a{layer}"], kernel_shape=[3, 3], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"a{layer}"], [f"r{layer}"]))
        nodes.append(helper.make_node("MaxPool", [f"r{layer}"], [f"p{layer}"], kernel_shape=[2, 2], strides=[2, 2]))
        node = f"p{layer}"
    nodes.append(helper.make_node("Flatten", [node], ["f"]))
    nodes.append(helper.make_node("Gemm", ["f", "w", "b"], ["l"]))
    nodes.append(helper.make_node("Softmax", ["l"], ["y"], axis=1))
    constants = [weights("k0", 16, 1, 3, 3), weights("c0", 16), weights("k1", 32, 16, 3, 3), weights("c1", 32)]
    return save(path, nodes, [*constants, weights("w", 32 * 49, 10), weights("b", 10)], [1, 28, 28], 10)


def attention(path):
    nodes = [helper.make_node("MatMul", ["x", f"w{name}"], [name]) for name in "qkv"]
    nodes += [
        helper.make_node("Transpose", ["k"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "t"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["o"]),
        helper.make_node("Add", ["o", "x"], ["r"]),
        helper.make_node("MatMul", ["r", "w1"], ["m"]),
        helper.make_node("Erf", ["m"], ["e"]),
        helper.make_node("MatMul", ["e", "w2"], ["z"]),
        helper.make_node("ReduceMean", ["z"], ["y"], axes=[1], keepdims=0),
    ]
    constants = [weights(f"w{name}", 32, 32) for name in "qkv"]
    return save(path, nodes, [*constants, weights("w1", 32, 128), weights("w2", 128, 32)], [16, 32], 32)


def peer(path, row, batch):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    rows, times, began = np.zeros((batch, *row), np.float32), [], time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        started = time.perf_counter()
        session.run(None, {"x": rows})
        times.append((time.perf_counter() - started) * 1e6)
    return statistics.median(times)


def ours(binary, path, batch, *library):
    lines = subprocess.run([binary, path, str(batch), *library], check=True, stdout=subprocess.PIPE, text=True).stdout
    return {line.split()[0]: float(line.split()[1]) for line in lines.splitlines()}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    arguments.add_argument("--ours", default=target / "debug/examples/graph_rate", help="our side")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    options = arguments.parse_args()
    library = sorted((pathlib.Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))[0]
    lines = ["| graph, rows | onnxruntime in Python | rten here | rten in a child | ONNX Runtime in a child | best of ours, ratio |",
             "| --- | ---: | ---: | ---: | ---: | ---: |"]
    with tempfile.TemporaryDirectory() as folder:
        for make in (dense, convolutions, attention):
            path = os.path.join(folder, f"{make.__name__}.onnx")
            row = make(path)
            for batch in BATCHES:
                rounds = [(peer(path, row, batch), ours(options.ours, path, batch), ours(options.ours, path, batch, library))
                          for _ in range(options.rounds)]
                middle = lambda of: statistics.median(map(of, rounds))
                cells = [middle(lambda r: r[0]), middle(lambda r: r[1]["here"]), middle(lambda r: r[1]["child"]), middle(lambda r: r[2]["child"])]
                ratio = middle(lambda r: r[0] / min(r[1]["child"], r[2]["child"]))
                lines.append(f"| {make.__name__}, {batch} | " + " | ".join(f"{cell:,.0f} µs" for cell in cells) + f" | {ratio:.2f}× |")
    tables.show("networks", lines, options.write)


if __name__ == "__main__":
    main()
