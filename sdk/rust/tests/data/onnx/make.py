"""Makes the small preprocessing graphs of this folder, each with rows and scikit-learn's own answer to them.

    pip install scikit-learn==1.9.1 skl2onnx==1.20.0 onnx==1.23.2 onnxruntime==1.32.0 pandas numpy
    python make.py

Every `NAME.json` has the columns that go in (null is a missing value), and names and rows of what comes out; the graph
stands beside it. ONNX Runtime must give the same as scikit-learn, or the script ends: what is compared with it alone says so.
"""

import json
import pathlib
import re
import warnings

import numpy as np
import onnx.helper as oh
import onnxruntime as ort
import pandas as pd
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)

warnings.filterwarnings("ignore")
HERE = pathlib.Path(__file__).parent
TYPES = {"real32": FloatTensorType, "real64": DoubleTensorType, "integer": Int64TensorType, "text": StringTensorType}
NUMPY = {"real32": np.float32, "real64": np.float64, "integer": np.int64}

# The converter gives lists of numpy's integers, which onnx does not take.
make_attribute = oh.make_attribute
plain = lambda value: [int(v) for v in value] if isinstance(value, list) and isinstance((value or [0])[0], np.integer) else value
oh.make_attribute = lambda key, value, *args, **more: make_attribute(key, plain(value), *args, **more)


def listed(values):
    return [None if value is None or (isinstance(value, float) and np.isnan(value)) else value for value in values]


def runtime(model, types, rows, is_matrix):
    text = lambda column: column.map(lambda value: "nan" if value is None else value).astype(str)
    if is_matrix:
        feeds = {"x": rows.to_numpy(dtype=NUMPY[next(iter(types.values()))])}
    else:
        cast = lambda name, kind: text(rows[name]) if kind == "text" else rows[name].astype(NUMPY[kind])
        feeds = {name: cast(name, kind).to_numpy().reshape(-1, 1) for name, kind in types.items()}
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    asked = {port.name for port in session.get_inputs()}
    return session.run(None, {name: value for name, value in feeds.items() if name in asked})[0]


def write(name, estimator, train, rows, types, names=None, judge="scikit-learn", matrix=False):
    """`matrix`: the columns are the places of one input `x`."""
    train, rows = pd.DataFrame(train), pd.DataFrame(rows)
    fit, asked = (train.to_numpy(), rows.to_numpy()) if matrix else (train, rows)
    estimator.fit(fit)
    if matrix:
        initial = [("x", TYPES[next(iter(types.values()))]([None, len(types)]))]
    else:
        initial = [(column, TYPES[kind]([None, 1])) for column, kind in types.items()]
    model = convert_sklearn(estimator, initial_types=initial, target_opset={"": 21, "ai.onnx.ml": 3})
    answer = estimator.transform(asked)
    answer = np.asarray(answer.todense() if hasattr(answer, "todense") else answer, dtype=np.float64)
    alone = judge == "scikit-learn alone"
    computed = answer if alone else runtime(model, types, rows, matrix).astype(np.float64)
    if judge == "onnxruntime":
        answer = computed
    np.testing.assert_allclose(computed, answer, rtol=1e-5, atol=1e-6, err_msg=name)
    if names is None:
        names = [re.sub(r"^x(\d+)", r"x[\1]", each) if matrix else each for each in estimator.get_feature_names_out()]
    place = lambda column: column if not matrix else f"x[{column}]" if len(types) > 1 else "x"
    columns = [{"name": place(c), "type": kind, "values": listed(rows[c].tolist())} for c, kind in types.items()]
    expect = {"columns": columns, "names": list(names), "rows": [listed(row) for row in answer.tolist()]}
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())
    (HERE / f"{name}.json").write_text(json.dumps(expect) + "\n")
    print(name, len(model.graph.node), "nodes", answer.shape)


def refused(name, estimator, train):
    estimator.fit(np.asarray(train), [1.0, 2.0, 4.0])
    model = convert_sklearn(estimator, initial_types=[("x", FloatTensorType([None, 2]))])
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())


def transformer(*parts, **more):
    return ColumnTransformer([(str(at), *part) for at, part in enumerate(parts)], verbose_feature_names_out=False, **more)


def hot(**more):
    more.setdefault("handle_unknown", "ignore")
    return OneHotEncoder(feature_name_combiner=lambda column, category: f"{column}={category}", **more)


def ordinal(unknown=-1):
    return OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=unknown)


NAN = float("nan")
RNG = np.random.default_rng(11)

# ---- as services do it: numbers and categories, holes in both, columns that pass or go ----
people = {
    "age": [22.0, 38.5, NAN, 61.0, 47.25, 30.1],
    "income": [1200.0, 5400.5, 3100.0, NAN, 250.75, 4000.0],
    "city": ["Bern", "", "Rome", "Bern", "Oslo", "Rome"],
    "plan": ["a", "b", "b", "a", "c", "b"],
    "visits": [1, 7, 3, 3, 7, 1],
    "note": ["x", "y", "x", "y", "x", "y"],
    "score": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
}
asked = {
    "age": [22.0, NAN, 150.0, -3.5, 38.5, 0.1],
    "income": [NAN, 0.0, 1e6, 5400.5, 33.3, 4000.0],
    "city": ["Bern", "", "Paris", "Oslo", "bern", "Rome"],
    "plan": ["b", "c", "z", "a", "", "b"],
    "visits": [7, 1, 2, -1, 3, 3],
    "note": ["x", "", "q", "y", "x", "y"],
    "score": [0.7, NAN, -1.5, 0.0, 1e9, 0.125],
}
kinds = dict(age="real32", income="real32", city="text", plan="text", visits="integer", note="text", score="real32")
pipeline = transformer(
    (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["age", "income"]),
    (make_pipeline(SimpleImputer(strategy="most_frequent", missing_values=""), hot()), ["city"]),
    (hot(), ["plan"]),
    (ordinal(), ["visits"]),
    ("drop", ["note"]),
    remainder="passthrough",
)
write("people", pipeline, people, asked, kinds)
# As `to_onnx` declares the inputs for a data frame; ONNX Runtime has no Imputer of 64 bits.
doubles = {name: "real64" if kind == "real32" else kind for name, kind in kinds.items()}
write("people_real64", pipeline, people, asked, doubles, judge="scikit-learn alone")

# ---- one matrix; one column goes several ways ----
grid = RNG.normal(size=(40, 4)).round(2) * 3
grid = np.column_stack([grid, RNG.integers(0, 4, 40)])
holes = grid.copy()
holes[::7, 0] = NAN
rows = np.vstack([grid[:8], grid.min(axis=0), grid.max(axis=0), [[9.5, -9.5, 0.1, 1e5, 7.0]]])
with_holes = rows.copy()
with_holes[1, 0] = NAN
write(
    "matrix",
    transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), [0, 2]),
        (MinMaxScaler(clip=True), [1]),
        ("passthrough", [3]),
        (hot(), [4]),
        (KBinsDiscretizer(3, encode="onehot-dense", strategy="uniform"), [1]),
        (RobustScaler(), [2]),
    ),
    holes,
    with_holes,
    {at: "real32" for at in range(5)},
    names=["x[0]", "x[2]", "x[1]", "x[3]"] + [f"x[4]={c}" for c in range(4)] + [f"x[1]={c}" for c in range(3)] + ["x[2]#2"],
    matrix=True,
)
write(
    "pipeline",
    make_pipeline(SimpleImputer(), StandardScaler()),
    holes,
    with_holes,
    {at: "real32" for at in range(5)},
    matrix=True,
)

# ---- every scaler, from 32 and from 64 bits ----
letters = "abcdef"
numbers = pd.DataFrame(RNG.normal(size=(30, 6)).round(3) * [1, 2, 5, 0.1, 10, 3], columns=list(letters))
probe = pd.concat([numbers.head(6), numbers.max().to_frame().T * 1.5, numbers.min().to_frame().T * 2], ignore_index=True)
for kind in ["real32", "real64"]:
    write(
        f"scalers_{kind}",
        transformer(
            (StandardScaler(), ["a"]),
            (MinMaxScaler((-1, 2)), ["b"]),
            (MinMaxScaler(clip=True), ["c"]),
            (RobustScaler(), ["d"]),
            (MaxAbsScaler(), ["e"]),
            (StandardScaler(with_mean=False), ["f"]),
        ),
        numbers,
        probe,
        {letter: kind for letter in letters},
    )
counts = pd.DataFrame({"i": [1, 5, 9, 2], "j": [10, -20, 30, 0]})
write(
    "integers",
    transformer((StandardScaler(), ["i"]), (MinMaxScaler(clip=True), ["j"]), (RobustScaler(), ["i"])),
    counts,
    {"i": [0, 5, 100], "j": [-30, 7, 31]},
    dict(i="integer", j="integer"),
    names=["i", "j", "i#2"],
)

# ---- bins, with values on the very edges ----
strategies = {"a": "uniform", "b": "quantile", "c": "kmeans"}
for encode in ["ordinal", "onehot-dense"]:
    bins = {letter: KBinsDiscretizer(4, encode=encode, strategy=strategy) for letter, strategy in strategies.items()}
    on_edges = KBinsDiscretizer(4, strategy="uniform").fit(numbers[["a"]]).bin_edges_[0]
    write(
        f"bins_{encode.split('-')[0]}",
        transformer(*((bins[letter], [letter]) for letter in "abc")),
        numbers[["a", "b", "c"]],
        pd.DataFrame({letter: np.concatenate([on_edges, [-99.0, 99.0, 0.0, 1e30]]) for letter in "abc"}),
        {letter: "real32" for letter in "abc"},
        names=[f"{c}={b}" for c in "abc" for b in range(4)] if encode != "ordinal" else list("abc"),
    )
limits = {"a": [0.1, 0.1 + 1e-9, 0.2, -1.0, 0.3], "b": [2.5, 2.5, 3.0, 2.0, 1e9]}
write(
    "thresholds",
    transformer((Binarizer(threshold=0.1), ["a"]), (Binarizer(threshold=2.5), ["b"])),
    limits,
    {"a": [0.1, 0.11, 0.2, -1.0], "b": [2.5, 2.5001, 3.0, 2.0]},
    dict(a="real32", b="real32"),
)
# Of 64 bits the converter writes "not below", where scikit-learn says "above": at the threshold the file decides.
write(
    "thresholds_real64",
    transformer((Binarizer(threshold=0.1), ["a"]), (Binarizer(threshold=2.5), ["b"])),
    limits,
    {"a": [0.1, 0.11, 0.2, -1.0], "b": [2.5, 2.5001, 5e8, 2.0]},
    dict(a="real64", b="real64"),
    judge="onnxruntime",
)

# ---- categories ----
sorts = {"s": ["low", "high", "mid", "low"], "i": [3, 1, 2, 3], "f": [0.1, 2.5, -7.25, 0.1], "g": ["é", "", "b", "b"]}
ask_sorts = {"s": ["mid", "none", "", "low"], "i": [2, 9, -1, 3], "f": [0.1, 2.5, 0.10001, -7.25], "g": ["b", "", "é", "e"]}
kinds = dict(s="text", i="integer", f="real32", g="text")
write("ordinals", transformer((ordinal(), ["s", "g"]), (ordinal(), ["i"]), (ordinal(), ["f"])), sorts, ask_sorts, kinds)
write("ordinals_nan", transformer((ordinal(NAN), ["s", "i"])), sorts, ask_sorts, kinds)
write("dropped", transformer((make_pipeline(hot(drop="first", sparse_output=False), StandardScaler()), ["s", "i"])), sorts, ask_sorts, kinds)
write(
    "constants",
    transformer(
        (SimpleImputer(strategy="constant", fill_value=-1.5), ["f"]),
        (make_pipeline(SimpleImputer(strategy="constant", fill_value="none", missing_values=""), hot()), ["g"]),
        (make_pipeline(SimpleImputer(strategy="constant", fill_value="low", missing_values=""), ordinal()), ["s"]),
    ),
    dict(sorts, f=[0.1, NAN, 3.0, 0.1]),
    dict(ask_sorts, f=[NAN, 2.0, NAN, 1.0]),
    kinds,
)
write("frequent", transformer((SimpleImputer(strategy="most_frequent"), ["f"])), dict(sorts, f=[2.0, NAN, 3.0, 2.0]), dict(ask_sorts, f=[NAN, 2.0, NAN, 1.0]), kinds)
missing = {"s": ["a", None, "b", "a"]}
write("missing_text", transformer((hot(), ["s"])), missing, {"s": [None, "b", "c", "a"]}, dict(s="text"), names=["s=a", "s=b", "s=nan"])
write("nested", make_pipeline(transformer((StandardScaler(), ["f"]), (hot(sparse_output=False), ["s"])), MinMaxScaler()), sorts, ask_sorts, kinds)
# The converter casts to integers, so 2.9 counts as 2 in the file.
write(
    "whole",
    transformer((hot(), [0])),
    [[2.0], [-1.0], [0.0], [3.0]],
    [[2.9], [-1.9], [-0.5], [0.99], [3.9999999], [1.0], [-2.0]],
    {0: "real32"},
    names=["x=-1", "x=0", "x=2", "x=3"],
    judge="onnxruntime",
    matrix=True,
)

# ---- what it costs ----
wide = {f"n{at}": RNG.normal(size=50).round(3).tolist() for at in range(30)}
wide |= {f"c{at}": RNG.choice([f"v{v}" for v in range(12)], 50).tolist() for at in range(10)}
write(
    "wide",
    transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), [f"n{at}" for at in range(30)]),
        (make_pipeline(SimpleImputer(strategy="most_frequent", missing_values=""), hot()), [f"c{at}" for at in range(10)]),
    ),
    wide,
    pd.DataFrame(wide).head(3),
    {name: "text" if name[0] == "c" else "real32" for name in wide},
)

# ---- what is no preparation of columns ----
refused("refused_normalizer", Normalizer(), [[1.0, 2.0], [3.0, 4.0], [0.0, 1.0]])
refused("refused_model", make_pipeline(StandardScaler(), LinearRegression()), [[1.0, 2.0], [3.0, 4.0], [0.0, 1.0]])
