"""Makes the small models of this folder, each with rows and its own library's answers to them.

    pip install xgboost==3.2.0 lightgbm==4.7.0 scikit-learn==1.9.1 skl2onnx==1.20.0 onnx onnxruntime==1.32.0
    python make.py

Every `NAME.expect.json` has rows (null is a missing value) and answers by kind; the model stands beside it.
"""

import json
import pathlib
import warnings

import lightgbm as lgb
import numpy as np
import onnx
import onnx.helper as oh
import onnxruntime as ort
import xgboost as xgb
from skl2onnx import to_onnx
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Binarizer, MaxAbsScaler, MinMaxScaler, Normalizer, OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

warnings.filterwarnings("ignore")
HERE = pathlib.Path(__file__).parent

# The converter gives lists of numpy's integers, which onnx does not take.
make_attribute = oh.make_attribute
plain = lambda value: [int(v) for v in value] if isinstance(value, list) and isinstance((value or [0])[0], np.integer) else value
oh.make_attribute = lambda key, value, *args, **more: make_attribute(key, plain(value), *args, **more)
RNG = np.random.default_rng(7)
N, F, SHOWN = 400, 5, 12

# Few digits keep the files small, and let values meet thresholds exactly.
X = (np.round(RNG.normal(size=(N, F)) * 16) / 16).astype(np.float32)
X[:, 3] = RNG.integers(0, 12, N)
TARGET = X[:, 0] + 0.5 * X[:, 1] * X[:, 2] + np.sin(X[:, 3]) + RNG.normal(size=N) * 0.1
BINARY = (TARGET > 0.2).astype(int)
CLASSES = np.digitize(TARGET, [-0.5, 0.7])
COUNTS = np.exp(np.clip(TARGET, -2, 2)) + 0.1
HOLES = X.copy()
HOLES[RNG.random(X.shape) < 0.2] = np.nan
HOLES[RNG.random(X.shape) < 0.1] = 0.0


def numbers(values):
    values = np.asarray(values, dtype=np.float64)
    values = values.reshape(len(values), -1)
    return [[float(v) if np.isfinite(v) else None for v in row] for row in values]


def write(name, rows, tolerance, **answers):
    answers = {kind: numbers(values) for kind, values in answers.items() if values is not None}
    text = json.dumps({"tolerance": tolerance, "rows": numbers(rows), **answers}, separators=(",", ":"))
    (HERE / f"{name}.expect.json").write_text(text + "\n")


def xgboost(name, y, params, rows=HOLES, x=HOLES, rounds=3, types=None, ending="json", **more):
    data = lambda values, label=None: xgb.DMatrix(values, label=label, feature_types=types, enable_categorical=bool(types), **({} if label is None else more))
    params = {"max_depth": 3, "nthread": 1, "seed": 1, "eta": 0.7, **params}
    booster = xgb.train(params, data(x, y), rounds)
    booster.save_model(HERE / f"{name}.{ending}")
    shown = data(rows[:SHOWN])
    raw = booster.predict(shown, output_margin=True)
    score = booster.predict(shown)
    label = None
    objective = params["objective"]
    if objective == "multi:softmax":
        label, score = score, None
    elif objective == "binary:hinge":
        label = score
    leaf = booster.predict(shown, pred_leaf=True) if params.get("booster") != "gblinear" else None
    if leaf is not None and "multi_strategy" in params:
        leaf = leaf.reshape(SHOWN, -1)
    write(name, rows[:SHOWN], 2e-6, score=score, raw=raw, leaf=leaf, label=label)


def lightgbm(name, y, params, rows=HOLES, x=HOLES, rounds=3, categorical="auto"):
    params = {"num_leaves": 7, "min_data_in_leaf": 5, "verbose": -1, "num_threads": 1, "seed": 1, "learning_rate": 0.5, **params}
    data = lgb.Dataset(x.astype(np.float64), y, categorical_feature=categorical, params=params)
    booster = lgb.train(params, data, rounds)
    text = booster.model_to_string()
    (HERE / f"{name}.txt").write_text(text[: text.index("\nfeature_importances")] + "\n")
    shown = rows[:SHOWN].astype(np.float64)
    score, raw = booster.predict(shown), booster.predict(shown, raw_score=True)
    if params.get("boosting") == "rf":
        # LightGBM's raw score of a random forest is the sum, its score and ours are made of the average.
        raw = raw / rounds
    write(name, shown, 1e-12, score=score, raw=raw, leaf=booster.predict(shown, pred_leaf=True))


def run(path, rows):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    feeds, at = {}, 0
    for each in inputs:
        width = each.shape[1]
        kind = {"tensor(double)": np.float64, "tensor(int64)": np.int64}.get(each.type, np.float32)
        feeds[each.name] = rows[:, at : at + width].astype(kind)
        at += width
    return {out.name: value for out, value in zip(session.get_outputs(), session.run(None, feeds))}


def sklearn(name, model, y, x=X, rows=None, tolerance=2e-6, as_type=np.float32, opset=None, **options):
    model.fit(x, y)
    options = {id(model): options} if options else None
    proto = to_onnx(model, x[:1].astype(as_type), options=options, target_opset=opset)
    path = HERE / f"{name}.onnx"
    path.write_bytes(proto.SerializeToString())
    rows = (x if rows is None else rows)[:SHOWN].astype(np.float32)
    made = run(path, rows)
    label = made.get("label", made.get("output_label"))
    score = made.get("probabilities", made.get("output_probability", made.get("variable")))
    if isinstance(score, list):
        score = [list(row.values()) for row in score]
    if label is not None:
        classes = [str(c) for c in model.classes_]
        label = [classes.index(str(v)) for v in label]
    write(name, rows, tolerance, score=score, label=label)


def onnx_file(name, node, rows, outputs, domain=5):
    """One ai.onnx.ml node by itself."""
    ports = [oh.make_tensor_value_info(n, t, None) for n, t in outputs]
    graph = oh.make_graph([node], name, [oh.make_tensor_value_info("x", 1, [None, rows.shape[1]])], ports)
    ids = [oh.make_opsetid("", 18), oh.make_opsetid("ai.onnx.ml", domain)]
    model = oh.make_model(graph, opset_imports=ids, ir_version=9)
    path = HERE / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    made = run(path, rows.astype(np.float32))
    write(name, rows, 2e-6, score=made[outputs[-1][0]], label=made[outputs[0][0]] if len(outputs) > 1 else None)


def xgboosts():
    for objective, y in {
        "binary:logistic": BINARY, "binary:logitraw": BINARY, "binary:hinge": BINARY, "reg:logistic": BINARY,
        "reg:squarederror": TARGET, "reg:absoluteerror": TARGET, "reg:pseudohubererror": TARGET,
        "reg:squaredlogerror": COUNTS, "count:poisson": np.round(COUNTS), "reg:gamma": COUNTS, "reg:tweedie": COUNTS,
        "survival:cox": COUNTS, "multi:softprob": CLASSES, "multi:softmax": CLASSES,
    }.items():
        more = {"num_class": 3} if objective.startswith("multi") else {}
        xgboost("xgb_" + objective.replace(":", "_"), y, {"objective": objective, **more}, rounds=3)
    xgboost("xgb_quantile", TARGET, {"objective": "reg:quantileerror", "quantile_alpha": 0.7})
    xgboost("xgb_aft", COUNTS, {"objective": "survival:aft"}, label_lower_bound=COUNTS, label_upper_bound=COUNTS)
    xgboost("xgb_rank", np.round(COUNTS), {"objective": "rank:ndcg"}, qid=np.arange(N) // 20)
    kinds = ["q", "q", "q", "c", "q"]
    for name, params in {"xgb_categories": {"max_cat_to_onehot": 1}, "xgb_one_hot": {"max_cat_to_onehot": 30}}.items():
        xgboost(name, TARGET, {"objective": "reg:squarederror", "max_depth": 4, **params}, types=kinds, x=X, rows=HOLES)
    dart = {"objective": "binary:logistic", "booster": "dart", "rate_drop": 0.5, "one_drop": 1}
    xgboost("xgb_dart", BINARY, dart, rounds=6)
    xgboost("xgb_forest", CLASSES, {"objective": "multi:softprob", "num_class": 3, "num_parallel_tree": 2, "subsample": 0.5, "max_depth": 2})
    both = np.stack([TARGET, -2 * TARGET + 1], 1)
    xgboost("xgb_vector_leaves", both, {"objective": "reg:squarederror", "multi_strategy": "multi_output_tree"})
    xgboost("xgb_two_targets", both, {"objective": "reg:squarederror"})
    xgboost("xgb_linear", CLASSES, {"objective": "multi:softprob", "num_class": 3, "booster": "gblinear"}, x=X, rows=X)
    xgboost("xgb_ubjson", BINARY, {"objective": "binary:logistic"}, ending="ubj")
    xgboost("xgb_ubjson_categories", CLASSES, {"objective": "multi:softprob", "num_class": 3, "max_cat_to_onehot": 1}, types=kinds, x=X, ending="ubj")
    xgboost("xgb_base_score", BINARY, {"objective": "binary:logistic", "base_score": 0.3, "grow_policy": "lossguide", "max_leaves": 6, "max_depth": 0})
    xgboost("xgb_pruned", TARGET, {"objective": "reg:squarederror", "tree_method": "exact", "gamma": 20.0, "max_depth": 5})
    # Files of XGBoost 1.x: one number as base score, booleans for directions, no categories.
    old = json.loads((HERE / "xgb_binary_logistic.json").read_text())
    learner = old["learner"]
    score = learner["learner_model_param"]["base_score"].strip("[]")
    learner["learner_model_param"] = {"base_score": score, "num_class": "0", "num_feature": str(F)}
    del learner["feature_names"], learner["feature_types"], learner["gradient_booster"]["model"]["iteration_indptr"]
    learner["gradient_booster"]["model"].pop("cats", None)
    for tree in learner["gradient_booster"]["model"]["trees"]:
        tree["default_left"] = [bool(v) for v in tree["default_left"]]
        for key in [k for k in tree if k.startswith("categories") or k == "split_type"]:
            del tree[key]
    (HERE / "xgb_old.json").write_text(json.dumps(old, separators=(",", ":")))
    (HERE / "xgb_old.expect.json").write_text((HERE / "xgb_binary_logistic.expect.json").read_text())


def lightgbms():
    for objective, y in {
        "binary": BINARY, "regression": TARGET, "regression_l1": TARGET, "huber": TARGET, "fair": TARGET,
        "quantile": TARGET, "mape": TARGET, "poisson": COUNTS, "gamma": COUNTS, "tweedie": COUNTS,
        "cross_entropy": BINARY * 0.8 + 0.1, "cross_entropy_lambda": BINARY * 0.8 + 0.1, "multiclass": CLASSES, "multiclassova": CLASSES,
    }.items():
        more = {"num_class": 3} if objective.startswith("multi") else {}
        lightgbm("lgb_" + objective, y, {"objective": objective, **more}, rounds=2)
    lightgbm("lgb_sigmoid", BINARY, {"objective": "binary", "sigmoid": 2.5})
    lightgbm("lgb_sqrt", TARGET, {"objective": "regression", "reg_sqrt": True})
    lightgbm("lgb_zero_is_missing", TARGET, {"objective": "regression", "zero_as_missing": True})
    lightgbm("lgb_no_missing", TARGET, {"objective": "regression", "use_missing": False})
    lightgbm("lgb_complete", TARGET, {"objective": "regression"}, x=X)
    lightgbm("lgb_categories", TARGET, {"objective": "regression", "min_data_per_group": 5, "cat_smooth": 1, "max_cat_to_onehot": 1}, x=np.where(np.isnan(HOLES), np.nan, HOLES), categorical=[3])
    odd = X.copy()
    odd[:8, 3] = [-1, 40, 3.7, 1e6, -0.5, 31, 32, 0]
    odd[8, 3] = np.nan
    lightgbm("lgb_odd_categories", TARGET, {"objective": "regression", "min_data_per_group": 5, "cat_smooth": 1}, x=X, rows=odd, categorical=[3])
    forest = {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}
    lightgbm("lgb_forest", BINARY, {"objective": "binary", **forest})
    lightgbm("lgb_forest_classes", CLASSES, {"objective": "multiclass", "num_class": 3, **forest})
    lightgbm("lgb_linear", TARGET, {"objective": "regression", "linear_tree": True})
    lightgbm("lgb_dart", BINARY, {"objective": "binary", "boosting": "dart", "drop_rate": 0.5})
    lightgbm("lgb_stump", np.ones(N), {"objective": "regression"}, rounds=1)


def sklearns():
    small = {"n_estimators": 3, "max_depth": 3, "random_state": 1}
    words = np.array(["low", "middle", "high"])[CLASSES]
    sklearn("skl_boosted_binary", GradientBoostingClassifier(**small), BINARY)
    sklearn("skl_boosted_classes", GradientBoostingClassifier(**small), words)
    sklearn("skl_boosted_regressor", GradientBoostingRegressor(**small), TARGET)
    sklearn("skl_forest", RandomForestClassifier(**small), BINARY, zipmap=False)
    sklearn("skl_forest_classes", RandomForestClassifier(**small), CLASSES + 5)
    sklearn("skl_extra", ExtraTreesRegressor(**small), TARGET)
    sklearn("skl_tree", DecisionTreeClassifier(max_depth=3), BINARY)
    sklearn("skl_tree_regressor", DecisionTreeRegressor(max_depth=3), np.stack([TARGET, -TARGET], 1))
    hist = {"max_iter": 3, "max_depth": 3, "random_state": 1}
    sklearn("skl_hist", HistGradientBoostingRegressor(**hist), TARGET, x=HOLES)
    sklearn("skl_hist_binary", HistGradientBoostingClassifier(**hist), BINARY, x=HOLES, zipmap=False)
    sklearn("skl_hist_classes", HistGradientBoostingClassifier(**hist), CLASSES, x=HOLES, zipmap=False)
    sklearn("skl_logistic", LogisticRegression(), BINARY)
    sklearn("skl_logistic_classes", make_pipeline(StandardScaler(), LogisticRegression()), words)
    sklearn("skl_linear", make_pipeline(MinMaxScaler(), LinearRegression()), TARGET, tolerance=1e-5)
    sklearn("skl_linear_two", make_pipeline(MaxAbsScaler(), Ridge()), np.stack([TARGET, -TARGET], 1), tolerance=1e-5)
    sklearn("skl_imputed", make_pipeline(SimpleImputer(), Normalizer(), RandomForestClassifier(**small)), BINARY, x=HOLES)
    sklearn("skl_binarized", make_pipeline(Binarizer(threshold=0.3), LogisticRegression()), BINARY)
    encode = ColumnTransformer([("c", OneHotEncoder(handle_unknown="ignore"), [3]), ("n", StandardScaler(), [0, 1, 2, 4])])
    sklearn("skl_one_hot", make_pipeline(encode, GradientBoostingClassifier(**small)), BINARY)
    # Has operations that are not ours: the import says so.
    sklearn("unsupported", AdaBoostClassifier(n_estimators=2, random_state=1), BINARY, zipmap=False)
    (HERE / "unsupported.expect.json").unlink()
    sklearn("skl_net", MLPClassifier((4,), max_iter=50, random_state=1), CLASSES, zipmap=False)
    sklearn("skl_opset_9", GradientBoostingClassifier(**small), BINARY, opset={"": 9, "ai.onnx.ml": 1})


def onnxes():
    rows = HOLES[:SHOWN]
    ml = dict(domain="ai.onnx.ml")
    modes = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]
    for mode in modes:
        nodes = dict(
            nodes_treeids=[0] * 5 + [1], nodes_nodeids=[0, 1, 2, 3, 4, 0], nodes_featureids=[3, 0, 0, 0, 0, 0],
            nodes_values=[3.0, 0.0, 0, 0, 0, 0], nodes_modes=[mode, "BRANCH_LEQ", "LEAF", "LEAF", "LEAF", "LEAF"],
            nodes_truenodeids=[1, 3, 0, 0, 0, 0], nodes_falsenodeids=[2, 4, 0, 0, 0, 0],
            nodes_missing_value_tracks_true=[0, 1, 0, 0, 0, 0],
        )
        for kind in ["SUM", "AVERAGE", "MIN", "MAX"]:
            if kind != "SUM" and mode != "BRANCH_GTE":
                continue
            node = oh.make_node("TreeEnsembleRegressor", ["x"], ["y"], name="trees", **ml, **nodes, n_targets=2,
                target_treeids=[0, 0, 0, 0, 1, 1], target_nodeids=[2, 3, 4, 4, 0, 0], target_ids=[0, 0, 1, 0, 0, 1],
                target_weights=[1.0, -2.0, 3.0, 0.25, 0.5, 0.75], base_values=[0.1, 0.2], aggregate_function=kind)
            onnx_file(f"ml_{mode.lower()}_{kind.lower()}", node, rows, [("y", 1)], 3)
    for transform in ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"]:
        weights = [0.3, 0.2, 0.4, 0.1, 0.35]
        node = oh.make_node("TreeEnsembleClassifier", ["x"], ["label", "y"], name="trees", **ml, **nodes,
            classlabels_int64s=[0, 1, 2], class_treeids=[0, 0, 0, 0, 1], class_nodeids=[2, 3, 4, 4, 0], class_ids=[0, 1, 2, 0, 1],
            class_weights=weights, post_transform=transform)
        onnx_file(f"ml_classes_{transform.lower()}", node, rows, [("label", 7), ("y", 1)], 3)
        for sign, name in [(1, "positive"), (-1, "mixed")]:
            if transform == "PROBIT":
                continue
            node = oh.make_node("TreeEnsembleClassifier", ["x"], ["label", "y"], name="trees", **ml, **nodes,
                classlabels_int64s=[0, 1], class_treeids=[0, 0, 0, 1], class_nodeids=[2, 3, 4, 0], class_ids=[0] * 4,
                class_weights=[0.3, sign * 0.2, 0.4, 0.15], post_transform=transform)
            onnx_file(f"ml_binary_{name}_{transform.lower()}", node, rows, [("label", 7), ("y", 1)], 3)
    tensor = lambda name, kind, values: oh.make_tensor(name, kind, [len(values)], values)
    five = dict(
        tree_roots=[0, 3], nodes_featureids=[0, 3, 1, 4], n_targets=2,
        nodes_modes=tensor("m", 2, [0, 6, 3, 1]), nodes_splits=tensor("s", 1, [0.2, 0.0, -0.1, 0.0]),
        nodes_truenodeids=[1, 0, 1, 3], nodes_trueleafs=[0, 1, 1, 1], nodes_falsenodeids=[2, 1, 2, 3],
        nodes_falseleafs=[0, 1, 1, 1], nodes_missing_value_tracks_true=[1, 0, 0, 0], leaf_targetids=[0, 1, 0, 1],
        leaf_weights=tensor("w", 1, [1.0, 2.0, -3.0, 0.5]), membership_values=tensor("v", 1, [1.0, 3.0, 5.0, 8.0, np.nan]),
    )
    node = oh.make_node("TreeEnsemble", ["x"], ["y"], name="trees", **ml, **five, aggregate_function=1, post_transform=0)
    onnx_file("ml_version_5", node, rows, [("y", 1)])


if __name__ == "__main__":
    for old in HERE.iterdir():
        if old.name.startswith(("xgb_", "lgb_", "skl_", "ml_", "unsupported.")):
            old.unlink()
    xgboosts()
    lightgbms()
    sklearns()
    onnxes()
    print(sum(path.stat().st_size for path in HERE.iterdir()), "bytes")
