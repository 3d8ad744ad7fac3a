"""Makes the small models of this folder, each with rows and its own library's answers to them.

    pip install xgboost==3.2.0 lightgbm==4.7.0 scikit-learn==1.9.1 skl2onnx==1.20.0 onnx onnxruntime==1.32.0
    python make.py

Every `NAME.expect.json` has rows (null is a missing value) and answers by kind; the model stands beside it.
With names as arguments only those are made, and no others removed.
"""

import json
import pathlib
import sys
import warnings

import lightgbm as lgb
import numpy as np
import onnx
import onnx.helper as oh
import onnxruntime as ort
import xgboost as xgb
from skl2onnx import to_onnx
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.mixture import GaussianMixture
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, GaussianNB
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Binarizer, MaxAbsScaler, MinMaxScaler, Normalizer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC, SVR, NuSVC, NuSVR, OneClassSVM
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


def is_wanted(name):
    return not sys.argv[1:] or name in sys.argv[1:]


def write(name, rows, tolerance, **answers):
    answers = {kind: numbers(values) for kind, values in answers.items() if values is not None}
    text = json.dumps({"tolerance": tolerance, "rows": numbers(rows), **answers}, separators=(",", ":"))
    (HERE / f"{name}.expect.json").write_text(text + "\n")


def xgboost(name, y, params, rows=HOLES, x=HOLES, rounds=3, types=None, ending="json", **more):
    if not is_wanted(name):
        return
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
    if not is_wanted(name):
        return
    params = {"num_leaves": 7, "min_data_in_leaf": 5, "verbose": -1, "num_threads": 1, "seed": 1, "learning_rate": 0.5, **params}
    data = lgb.Dataset(x.astype(np.float64), y, categorical_feature=categorical, params=params)
    booster = lgb.train(params, data, rounds)
    text = booster.model_to_string()
    (HERE / f"{name}.txt").write_text(text[: text.index("\nfeature_importances")] + "\n")
    shown = rows[:SHOWN].astype(np.float64)
    score, raw = booster.predict(shown), booster.predict(shown, raw_score=True)
    contributions = booster.predict(shown, pred_contrib=True) if params.get("boosting") == "rf" else None
    write(name, shown, 1e-12, score=score, raw=raw, leaf=booster.predict(shown, pred_leaf=True), contributions=contributions)


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


def sklearn(name, model, y, x=X, rows=None, tolerance=2e-6, as_type=np.float32, opset=None, peer=None, **options):
    """`peer` names the method of scikit-learn whose answers are kept beside onnxruntime's."""
    if not is_wanted(name):
        return
    model.fit(x, y)
    options = {id(model): options} if options else None
    proto = to_onnx(model, x[:1].astype(as_type), options=options, target_opset=opset)
    path = HERE / f"{name}.onnx"
    path.write_bytes(proto.SerializeToString())
    rows = (x if rows is None else rows)[:SHOWN].astype(np.float32)
    made = run(path, rows)
    label = made.get("label", made.get("output_label"))
    score = made.get("probabilities", made.get("output_probability", made.get("variable", made.get("scores"))))
    if isinstance(score, list):
        score = [list(row.values()) for row in score]
    if label is not None and hasattr(model, "classes_"):
        classes = [str(c) for c in model.classes_]
        label = [classes.index(str(v)) for v in np.ravel(label)]
    answers = getattr(model, peer)(rows) if peer else None
    write(name, rows, tolerance, score=score, label=np.ravel(label) if label is not None else None, sklearn=answers)


def onnx_file(name, nodes, rows, outputs, domain=5, constants=(), kind=1, tolerance=2e-6):
    """One ai.onnx.ml node by itself, or a few."""
    if not is_wanted(name):
        return
    nodes = nodes if isinstance(nodes, list) else [nodes]
    ports = [oh.make_tensor_value_info(n, t, None) for n, t in outputs]
    constants = [oh.make_tensor(n, t, np.shape(v), np.ravel(v)) for n, t, v in constants]
    graph = oh.make_graph(nodes, name, [oh.make_tensor_value_info("x", kind, [None, rows.shape[1]])], ports, constants)
    ids = [oh.make_opsetid("", 18), oh.make_opsetid("ai.onnx.ml", domain)]
    model = oh.make_model(graph, opset_imports=ids, ir_version=9)
    path = HERE / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    made = run(path, rows.astype(np.float64 if kind == 11 else np.float32))
    write(name, rows, tolerance, score=made[outputs[-1][0]], label=made[outputs[0][0]] if len(outputs) > 1 else None)


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
    odd = X.copy()
    odd[:8, 3] = [-0.5, -0.001, -1, 3.7, 40, 0, 0.5, -0.0]
    xgboost("xgb_odd_categories", X[:, 3] % 3 == 0, {"objective": "reg:squarederror", "max_cat_to_onehot": 30}, types=kinds, x=X, rows=odd)
    xgboost("xgb_pruned", TARGET, {"objective": "reg:squarederror", "tree_method": "exact", "gamma": 20.0, "max_depth": 5})
    infinite_xgboost()
    # Files of XGBoost 1.x: one number as base score, booleans for directions, no categories.
    if not is_wanted("xgb_old"):
        return
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


def infinite_xgboost():
    """A model that has diverged in places: XGBoost writes its numbers as bare words."""
    if not is_wanted("xgb_infinite"):
        return
    model = json.loads((HERE / "xgb_reg_squarederror.json").read_text())
    trees = model["learner"]["gradient_booster"]["model"]["trees"]
    for tree, value in zip(trees, [np.inf, -np.inf, np.nan]):
        leaf = tree["left_children"].index(-1)
        tree["split_conditions"][leaf], tree["base_weights"][leaf], tree["loss_changes"][0] = value, value, np.nan
    (HERE / "xgb_infinite.json").write_text(json.dumps(model, separators=(",", ":")))
    booster = xgb.Booster(model_file=HERE / "xgb_infinite.json")
    booster.save_model(HERE / "xgb_infinite.json")
    raw = booster.predict(xgb.DMatrix(HOLES[:SHOWN]))
    write("xgb_infinite", HOLES[:SHOWN], 2e-6, score=raw, raw=raw)


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
    if is_wanted("unsupported"):
        sklearn("unsupported", KNeighborsRegressor(2), TARGET[:12], x=X[:12])
        (HERE / "unsupported.expect.json").unlink()
    sklearn("skl_net", MLPClassifier((4,), max_iter=50, random_state=1), CLASSES, zipmap=False)
    sklearn("skl_opset_9", GradientBoostingClassifier(**small), BINARY, opset={"": 9, "ai.onnx.ml": 1})
    few = dict(x=X[:60], peer="predict_proba", zipmap=False)
    stump = DecisionTreeClassifier(max_depth=2, random_state=1)
    sklearn("skl_ada", AdaBoostClassifier(n_estimators=2, random_state=1), CLASSES[:60], **few)
    sklearn("skl_bagging", BaggingClassifier(stump, n_estimators=3, random_state=1), CLASSES[:60], **few)
    sklearn("skl_voting", VotingClassifier([("a", LogisticRegression()), ("b", stump)], voting="soft", flatten_transform=False), CLASSES[:60], **few)
    sklearn("skl_one_vs_rest", OneVsRestClassifier(LogisticRegression()), CLASSES[:60], **few)
    sklearn("skl_one_vs_one", OneVsOneClassifier(LogisticRegression()), CLASSES[:60], **{**few, "peer": "decision_function"})
    sklearn("skl_isotonic", CalibratedClassifierCV(LogisticRegression(), method="isotonic", cv=2), BINARY[:60], **{**few, "peer": None})
    sklearn("skl_quadratic", QuadraticDiscriminantAnalysis(), CLASSES[:60], **few, tolerance=1e-5)
    sklearn("skl_gaussian_bayes", GaussianNB(), words[:60], **few, tolerance=1e-5)
    sklearn("skl_bernoulli_bayes", BernoulliNB(), BINARY[:60], **few)
    sklearn("skl_categorical_bayes", CategoricalNB(), BINARY, x=np.abs(np.round(X)), peer="predict_proba", zipmap=False)
    sklearn("skl_mixture", GaussianMixture(2, random_state=1), None, x=X[:60], peer="predict_proba", tolerance=1e-5)
    sklearn("skl_ada_regressor", AdaBoostRegressor(DecisionTreeRegressor(max_depth=2), n_estimators=3, random_state=1), TARGET, peer="predict")
    sklearn("skl_isolation", IsolationForest(n_estimators=2, max_samples=16, random_state=1), None, peer="decision_function", opset={"": 18, "ai.onnx.ml": 3})
    sklearn("skl_svc_rbf", SVC(probability=True, random_state=1), words[:60], **few, tolerance=1e-5)
    sklearn("skl_svc_linear", SVC(kernel="linear", probability=True, random_state=1), BINARY[:60], **few, tolerance=1e-5)
    sklearn("skl_svc_poly", NuSVC(kernel="poly", degree=2, coef0=0.5), BINARY[:60], x=X[:60], zipmap=False, tolerance=1e-5)
    sklearn("skl_svc_sigmoid", SVC(kernel="sigmoid"), CLASSES[:60], x=X[:60], peer="decision_function", zipmap=False, tolerance=1e-5)
    sklearn("skl_svr_rbf", SVR(), TARGET[:60], x=X[:60], peer="predict", tolerance=1e-5)
    sklearn("skl_svr_poly", NuSVR(kernel="poly", degree=4, coef0=0.5, gamma=0.01), TARGET[:60], x=X[:60], tolerance=1e-5)
    sklearn("skl_svm_one_class", OneClassSVM(gamma=0.1), None, x=X[:60], tolerance=1e-5)


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
    double = {**five, "nodes_splits": tensor("s", 11, [0.1, 0.0, -0.1, 1 / 3]), "leaf_weights": tensor("w", 11, [1 / 3, 2.0, -3.0, 0.1]),
              "membership_values": tensor("v", 11, [0.1, 5.5, np.nan])}
    node = oh.make_node("TreeEnsemble", ["x"], ["y"], name="trees", **ml, **double, aggregate_function=0, post_transform=0)
    # Half of these are apart by less than single precision can tell.
    near = np.array([[0.1, 0, 0, v, w] for v in [0.1, np.nextafter(0.1, 1), 5.5, 5.0] for w in [1 / 3, np.nextafter(1 / 3, 0)]])
    onnx_file("ml_version_5_double", node, near, [("y", 11)], kind=11, tolerance=1e-12)
    odd_ensembles(rows, ml)
    operations(rows, ml)


def odd_ensembles(rows, ml):
    """Outputs that leaves do not speak of, base values of two classes, links of one target."""
    nodes = dict(
        nodes_treeids=[0, 0, 0, 1], nodes_nodeids=[0, 1, 2, 0], nodes_featureids=[0, 0, 0, 0], nodes_values=[0.0, 0, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF", "LEAF"], nodes_truenodeids=[1, 0, 0, 0], nodes_falsenodeids=[2, 0, 0, 0],
    )
    def regressor(name, ids, base, **more):
        node = oh.make_node("TreeEnsembleRegressor", ["x"], ["y"], name="trees", **ml, **nodes, target_treeids=[0, 0, 1],
            target_nodeids=[1, 2, 0], target_ids=ids, target_weights=[-1.5, 2.5, 0.25], base_values=base, **more)
        onnx_file(name, node, rows, [("y", 1)], 3)
    regressor("ml_target_without_leaf", [0, 0, 1], [10.0, 20.0, 30.0], n_targets=3)
    regressor("ml_target_without_leaf_min", [0, 0, 1], [10.0, 20.0, 30.0], n_targets=3, aggregate_function="MIN", post_transform="LOGISTIC")
    regressor("ml_one_target_logistic", [0, 0, 0], [0.5], n_targets=1, post_transform="LOGISTIC")
    def classifier(name, ids, weights, base, transform):
        node = oh.make_node("TreeEnsembleClassifier", ["x"], ["label", "y"], name="trees", **ml, **nodes, classlabels_int64s=[0, 1],
            class_treeids=[0, 0, 0, 0, 1, 1][: len(ids)], class_nodeids=[1, 2, 1, 2, 0, 0][: len(ids)], class_ids=ids, class_weights=weights,
            post_transform=transform, **({"base_values": base} if base else {}))
        onnx_file(name, node, rows, [("label", 7), ("y", 1)], 3)
    for transform in ["NONE", "LOGISTIC", "SOFTMAX"]:
        end = transform.lower()
        both = [0, 0, 1, 1, 0, 1], [-0.75, 0.5, 0.25, -0.5, 0.125, 0.25]
        one = [-0.75, 0.5, 0.0, 0.0]
        classifier(f"ml_two_bases_both_{end}", *both, [-0.4, 0.15], transform)
        classifier(f"ml_two_bases_first_{end}", [0] * 4, one, [-0.4, 0.15], transform)
        classifier(f"ml_one_base_both_{end}", *both, [0.25], transform)
        classifier(f"ml_second_{end}", [1] * 4, one, None, transform)
    classifier("ml_two_bases_positive", [0] * 4, [0.1, 0.5, 0.0, 0.0], [0.2, 0.1], "NONE")
    classifier("ml_second_positive", [1] * 4, [0.1, 0.5, 0.0, 0.0], None, "NONE")
    node = oh.make_node("TreeEnsembleClassifier", ["x"], ["label", "y"], name="trees", **ml, **nodes, classlabels_int64s=[0, 1, 2],
        class_treeids=[0, 0, 1], class_nodeids=[1, 2, 0], class_ids=[1, 1, 2], class_weights=[-1.0, -0.25, -0.5])
    onnx_file("ml_silent_class", node, rows, [("label", 7), ("y", 1)], 3)
    tensor = lambda name, kind, values: oh.make_tensor(name, kind, [len(values)], values)
    member = oh.make_node("TreeEnsemble", ["x"], ["y"], name="trees", **ml, tree_roots=[0], nodes_featureids=[0, 0], n_targets=1,
        nodes_modes=tensor("m", 2, [6, 6]), nodes_splits=tensor("s", 1, [0.0, 0.0]), nodes_truenodeids=[0, 1], nodes_trueleafs=[1, 1],
        nodes_falsenodeids=[1, 2], nodes_falseleafs=[0, 1], nodes_missing_value_tracks_true=[0, 1], leaf_targetids=[0, 0, 0],
        leaf_weights=tensor("w", 1, [1.0, 2.0, 3.0]), membership_values=tensor("v", 1, [1.5, 0.75, np.nan, 3.0, 0.1, np.nan]))
    values = [1.5, 1.0, 0.1, np.float32(0.1) * 2, 0.75, -2.0, 3.0, 3.5, 0.0, -0.0, -0.5, np.nan]
    onnx_file("ml_member_numbers", member, np.array(values, dtype=np.float32).reshape(-1, 1), [("y", 1)])
    svms(rows, ml)


def svms(rows, ml):
    """The transforms of support vectors, and the forms that scikit-learn's converter does not write."""
    rows = np.nan_to_num(rows)[:, :2]
    vectors, coefficients = [0.5, -1.0, 1.0, 0.25, -0.5, 2.0], [0.75, -0.5, 0.25]
    for transform in ["NONE", "LOGISTIC", "SOFTMAX"]:
        node = oh.make_node("SVMClassifier", ["x"], ["label", "y"], name="svm", **ml, classlabels_ints=[0, 1], kernel_type="RBF",
            kernel_params=[0.5, 0.0, 0.0], support_vectors=vectors, vectors_per_class=[1, 2], coefficients=coefficients, rho=[0.1],
            post_transform=transform)
        onnx_file(f"ml_svm_two_{transform.lower()}", node, rows, [("label", 7), ("y", 1)], 1)
        node = oh.make_node("SVMClassifier", ["x"], ["label", "y"], name="svm", **ml, classlabels_ints=[0, 1, 2],
            kernel_params=[0.0, 0.0, 0.0], coefficients=vectors, rho=[0.1], post_transform=transform)
        onnx_file(f"ml_svm_linear_{transform.lower()}", node, rows, [("label", 7), ("y", 1)], 1)
    node = oh.make_node("SVMClassifier", ["x"], ["label", "y"], name="svm", **ml, classlabels_ints=[0, 1],
        kernel_params=[0.0, 0.0, 0.0], coefficients=[0.5, -1.0, 1.0, 0.25], rho=[0.1])
    onnx_file("ml_svm_linear_two", node, rows, [("label", 7), ("y", 1)], 1)
    node = oh.make_node("SVMRegressor", ["x"], ["y"], name="svm", **ml, kernel_params=[0.0, 0.0, 0.0], coefficients=[0.5, -1.0], rho=[0.1])
    onnx_file("ml_svm_regressor_linear", node, rows, [("y", 1)], 1)
    node = oh.make_node("SVMRegressor", ["x"], ["y"], name="svm", **ml, kernel_type="SIGMOID", kernel_params=[0.5, 0.1, 0.0],
        support_vectors=vectors, n_supports=3, coefficients=coefficients, rho=[0.1], one_class=1)
    onnx_file("ml_svm_one_class", node, rows, [("y", 1)], 1)


def operations(rows, ml):
    """Families of plain operations, each a graph whose answers stand side by side."""
    rows = np.nan_to_num(rows)
    node = lambda operation, inputs, outputs, **more: oh.make_node(operation, inputs.split(" "), outputs.split(), **more)
    def family(name, nodes, constants, parts):
        join = [node("Cast", part, f"{part}_f", to=1) for part in parts] + [node("Concat", " ".join(f"{p}_f" for p in parts), "y", axis=1)]
        onnx_file(name, nodes + join, rows, [("y", 1)], 3, constants)
    family("op_parts", [
        node("Slice", "x one four axis", "middle"), node("Slice", "x minus_one minus_nine axis minus_two", "back"),
        node("Split", "x sizes", "first second", axis=1), node("Split", "middle", "third fourth fifth", axis=-1, num_outputs=3),
        node("Shape", "x", "shape"), node("ConstantOfShape", "shape", "ones", value=oh.make_tensor("v", 1, [1], [1.0])),
        node("Gather", "shape zero", "count"), node("Concat", "count minus_one", "whole", axis=0), node("Reshape", "middle whole", "again"),
    ], [("one", 7, [1]), ("four", 7, [4]), ("axis", 7, [1]), ("minus_one", 7, [-1]), ("minus_nine", 7, [-9]), ("minus_two", 7, [-2]),
        ("sizes", 7, [2, 3]), ("zero", 7, [0])], ["middle", "back", "second", "first", "fifth", "third", "ones", "again"])
    kinds = ["Sum", "Mean", "Max", "Min", "Prod", "SumSquare", "L1", "L2", "LogSumExp"]
    family("op_reductions", [node(f"Reduce{kind}", "x axis", kind.lower(), keepdims=1) for kind in kinds] + [
        node("Reshape", "x cube", "cubed"), node("ReduceSum", "cubed axes", "both", keepdims=0), node("ReduceL2", "cubed axes", "norm", keepdims=0),
        node("Reshape", "both column", "both_c"), node("Reshape", "norm column", "norm_c"), node("Exp", "x", "exp"),
        node("ReduceLogSum", "exp axis", "logsum", keepdims=1), node("ReduceSum", "constants", "all", keepdims=1), node("Mul", "x all", "scaled"),
    ], [("axis", 7, [1]), ("axes", 7, [1, 2]), ("cube", 7, [-1, 5, 1]), ("column", 7, [-1, 1]), ("constants", 1, [[0.5, 1.5], [2.0, 3.0]])],
        [kind.lower() for kind in kinds] + ["both_c", "norm_c", "logsum", "scaled"])
    family("op_order", [
        node("TopK", "x three", "largest largest_at", axis=1), node("TopK", "x three", "smallest smallest_at", axis=-1, largest=0),
        node("CumSum", "x axis", "sums"), node("CumSum", "x axis", "backwards", exclusive=1, reverse=1),
        node("GatherElements", "sums largest_at", "taken", axis=1), node("Softmax", "x", "shares", axis=-1),
        node("ArgMin", "x", "least", axis=1, keepdims=1),
    ], [("three", 7, [3]), ("axis", 6, np.array(1))], ["largest", "largest_at", "smallest", "smallest_at", "sums", "backwards", "taken", "shares", "least"])
    family("op_values", [
        node("Round", "x", "round"), node("Softplus", "x", "soft"), node("Clip", "x low high", "clip"), node("Clip", "x  high", "below"),
        node("Greater", "x low", "above"), node("Less", "x high", "under"), node("Xor", "above under", "either"), node("And", "above under", "and"),
        node("Or", "above under", "or"), node("Not", "above", "not"), node("Where", "above x low", "pick"), node("Sum", "x x x", "sum"),
        node("Abs", "x", "abs"), node("Sqrt", "abs", "root"), node("Pow", "abs two", "square"), node("Neg", "x", "neg"), node("Sign", "x", "sign"),
    ], [("low", 1, np.float32(-0.5)), ("high", 1, np.float32(0.75)), ("two", 1, np.float32(2.0))],
        ["round", "soft", "clip", "below", "either", "and", "or", "not", "pick", "sum", "root", "square", "neg", "sign"])
    # Rows are moved about and come back.
    family("op_rows_apart", [
        node("Transpose", "x", "columns", perm=[1, 0]), node("Softmax", "columns", "shares", axis=0), node("Transpose", "shares", "rows", perm=[1, 0]),
        node("Reshape", "x stack", "stack_a"), node("Neg", "stack_a", "stack_b"), node("Concat", "stack_a stack_b", "stacked", axis=0),
        node("ReduceMax", "stacked zero", "greatest", keepdims=0), node("Concat", "x rows", "twice", axis=0), node("Reshape", "twice halves", "halved"),
        node("ReduceSum", "halved zero", "sums", keepdims=0),
    ], [("stack", 7, [1, -1, 5]), ("zero", 7, [0]), ("halves", 7, [2, -1, 5])], ["rows", "greatest", "sums"])
    mapped = [
        oh.make_node("Cast", ["x"], ["whole"], to=7),
        oh.make_node("CategoryMapper", ["whole"], ["names"], **ml, cats_int64s=[0, 1, 2, 3], cats_strings=["zero", "one", "two", "three"], default_string="many"),
        oh.make_node("CategoryMapper", ["names"], ["numbers"], **ml, cats_int64s=[7, 5, 3, 1], cats_strings=["two", "one", "three", "many"], default_int64=-9),
        oh.make_node("LabelEncoder", ["names"], ["places"], **ml, classes_strings=["three", "two", "zero"], default_int64=-2),
        oh.make_node("Concat", ["numbers", "places"], ["joined"], axis=1), oh.make_node("Cast", ["joined"], ["y"], to=1),
    ]
    onnx_file("ml_categories", mapped, rows, [("y", 1)], 1)


if __name__ == "__main__":
    for old in HERE.iterdir() if not sys.argv[1:] else []:
        if old.name.startswith(("xgb_", "lgb_", "skl_", "ml_", "op_", "unsupported.")):
            old.unlink()
    xgboosts()
    lightgbms()
    sklearns()
    onnxes()
    print(sum(path.stat().st_size for path in HERE.iterdir()), "bytes")
