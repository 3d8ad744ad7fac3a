"""Makes the fixtures of this folder: small graphs, rows, and what ONNX Runtime answers.

    pip install onnx==1.23.2 onnxruntime==1.32.0 numpy
    python make.py

Graphs whose names begin with `bad_` ask for more than they should get; they have no expectation.
"""

import json

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

random = np.random.default_rng(11)


def weights(name, *shape):
    scale = np.sqrt(1 / np.prod(shape[1:] if len(shape) == 4 else shape[:1]))
    return numpy_helper.from_array((random.standard_normal(shape) * scale).astype(np.float32), name)


def constant(name, value, kind):
    return numpy_helper.from_array(np.array(value, kind), name)


def save(name, nodes, constants, inputs, outputs, opset=17):
    graph = h.make_graph(nodes, name, inputs, outputs, constants)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], producer_name="make.py")
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, f"{name}.onnx")


def expect(name, rows, score, label=None):
    """Rows are matrices, by input; what is asked is what ONNX Runtime makes of them."""
    session = onnxruntime.InferenceSession(f"{name}.onnx")
    names = [output.name for output in session.get_outputs()]
    fixed = session.get_inputs()[0].shape[0]
    count = len(next(iter(rows.values())))
    size = fixed if isinstance(fixed, int) else count
    made = []
    for start in range(0, count, size):
        made.append(session.run(None, {key: value[start : start + size] for key, value in rows.items()}))
    of = lambda output: np.concatenate([part[names.index(output)].reshape(size, -1) for part in made])
    flat = np.concatenate([value.reshape(count, -1).astype(np.float64) for value in rows.values()], axis=1)
    case = {"rows": flat.tolist(), "scores": of(score).astype(np.float64).tolist()}
    if label:
        case["labels"] = of(label).reshape(-1).tolist()
    with open(f"{name}.expect.json", "w") as file:
        json.dump(case, file)


def real(*shape):
    return random.standard_normal(shape).astype(np.float32)


def tensor(name, kind, *shape):
    return h.make_tensor_value_info(name, kind, list(shape))


def pictures(name, rows):
    nodes = [
        h.make_node("Conv", ["x", "k", "c"], ["a"], kernel_shape=[3, 3], pads=[1] * 4),
        h.make_node("BatchNormalization", ["a", "s", "b", "m", "v"], ["n"]),
        h.make_node("Relu", ["n"], ["r"]),
        h.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        h.make_node("GlobalAveragePool", ["p"], ["g"]),
        h.make_node("Flatten", ["g"], ["f"]),
        h.make_node("Gemm", ["f", "w", "d"], ["l"]),
        h.make_node("Softmax", ["l"], ["y"], axis=1),
    ]
    constants = [weights("k", 4, 2, 3, 3), weights("c", 4), weights("w", 4, 3), weights("d", 3)]
    constants += [constant(n, [v] * 4, np.float32) for n, v in [("s", 1.5), ("b", 0.1), ("m", 0.2), ("v", 0.7)]]
    save(name, nodes, constants, [tensor("x", T.FLOAT, rows, 2, 6, 6)], [tensor("y", T.FLOAT, rows, 3)])
    expect(name, {"x": real(9, 2, 6, 6)}, "y") if rows == "N" else expect(name, {"x": real(6, 2, 6, 6)}, "y")


pictures("convolution", "N")
pictures("convolution_three_rows", 3)

nodes = [
    h.make_node("MatMul", ["x", "wq"], ["q"]),
    h.make_node("MatMul", ["x", "wk"], ["k"]),
    h.make_node("MatMul", ["x", "wv"], ["v"]),
    h.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
    h.make_node("MatMul", ["q", "kt"], ["s"]),
    h.make_node("Softmax", ["s"], ["p"], axis=-1),
    h.make_node("MatMul", ["p", "v"], ["o"]),
    h.make_node("Add", ["o", "x"], ["r"]),
    h.make_node("LayerNormalization", ["r", "g", "b"], ["n"], axis=-1),
    h.make_node("Erf", ["n"], ["e"]),
    h.make_node("ReduceMean", ["e"], ["y"], axes=[1], keepdims=0),
]
constants = [weights(n, 8, 8) for n in ["wq", "wk", "wv"]]
constants += [constant("g", [1.0] * 8, np.float32), constant("b", [0.5] * 8, np.float32)]
save("attention", nodes, constants, [tensor("x", T.FLOAT, "N", 5, 8)], [tensor("y", T.FLOAT, "N", 8)])
expect("attention", {"x": real(7, 5, 8)}, "y")

# Two inputs, one of whole numbers; the label comes before the scores.
nodes = [
    h.make_node("Gather", ["table", "words"], ["e"]),
    h.make_node("ReduceSum", ["e", "axis"], ["t"], keepdims=0),
    h.make_node("Concat", ["t", "more"], ["c"], axis=1),
    h.make_node("LSTM", ["seq", "lw", "lr"], ["", "lh"], hidden_size=4),
    h.make_node("Unsqueeze", ["c", "axis0"], ["seq"]),
    h.make_node("Squeeze", ["lh", "axis0"], ["h"]),
    h.make_node("Gemm", ["h", "w", "d"], ["scores"]),
    h.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
]
nodes = [nodes[0], nodes[1], nodes[2], nodes[4], nodes[3], nodes[5], nodes[6], nodes[7]]
constants = [weights("table", 20, 6), constant("axis", [1], np.int64), constant("axis0", [0], np.int64)]
constants += [weights("w", 4, 3), weights("d", 3)]
constants += [numpy_helper.from_array(real(1, 16, 8), "lw"), numpy_helper.from_array(real(1, 16, 4), "lr")]
inputs = [tensor("words", T.INT64, "N", 4), tensor("more", T.FLOAT, "N", 2)]
save("words", nodes, constants, inputs, [tensor("label", T.INT64, "N"), tensor("scores", T.FLOAT, "N", 3)])
expect("words", {"words": random.integers(0, 20, (8, 4)), "more": real(8, 2)}, "scores", "label")

# Three dimensions, so that they go to a general runtime. As much memory as the largest value says; a row of zeros, with which graphs are met, asks for none.
nodes = [
    h.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
    h.make_node("Cast", ["m"], ["n"], to=T.INT64),
    h.make_node("Unsqueeze", ["n", "axis0"], ["count"]),
    h.make_node("ConstantOfShape", ["count"], ["many"]),
    h.make_node("ReduceSum", ["many"], ["sum"], keepdims=0),
    h.make_node("Add", ["x", "sum"], ["y"]),
]
save("bad_memory", nodes, [constant("axis0", [0], np.int64)], [tensor("x", T.FLOAT, "N", 1, 3)], [tensor("y", T.FLOAT, "N", 1, 3)])

# As many rounds as the largest value says.
body = h.make_graph(
    [h.make_node("Add", ["acc", "one"], ["next"]), h.make_node("Identity", ["cond"], ["go"])],
    "body",
    [tensor("i", T.INT64), tensor("cond", T.BOOL), tensor("acc", T.FLOAT)],
    [tensor("go", T.BOOL), tensor("next", T.FLOAT)],
    [constant("one", 1.0, np.float32)],
)
nodes = [
    h.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
    h.make_node("Cast", ["m"], ["n"], to=T.INT64),
    h.make_node("Loop", ["n", "yes", "zero"], ["rounds"], body=body),
    h.make_node("Add", ["x", "rounds"], ["y"]),
]
constants = [constant("yes", True, bool), constant("zero", 0.0, np.float32)]
save("bad_time", nodes, constants, [tensor("x", T.FLOAT, "N", 1, 3)], [tensor("y", T.FLOAT, "N", 1, 3)])

# A terabyte before the first row.
nodes = [
    h.make_node("ConstantOfShape", ["shape"], ["many"]),
    h.make_node("ReduceSum", ["many"], ["sum"], keepdims=0),
    h.make_node("Add", ["x", "sum"], ["y"]),
]
save("bad_load", nodes, [constant("shape", [1_000_000, 250_000], np.int64)], [tensor("x", T.FLOAT, "N", 1, 3)], [tensor("y", T.FLOAT, "N", 1, 3)])

# No row for each row.
save("bad_rows", [h.make_node("ReduceSum", ["x"], ["e"], keepdims=0), h.make_node("Erf", ["e"], ["y"])], [], [tensor("x", T.FLOAT, "N", 1, 3)], [tensor("y", T.FLOAT)])
# A free dimension beside the rows.
save("bad_free", [h.make_node("Erf", ["x"], ["y"])], [], [tensor("x", T.FLOAT, "N", "M")], [tensor("y", T.FLOAT, "N", "M")])
# Text.
save("bad_text", [h.make_node("Identity", ["x"], ["y"])], [], [tensor("x", T.STRING, "N", 2)], [tensor("y", T.STRING, "N", 2)])
