"""Writes the cases beside it: small forests, rows and what `shap`, `xgboost` and `lightgbm` say about them.

`python generate.py` with `shap`, `xgboost`, `lightgbm` and `scikit-learn`; the data are made here from a fixed seed. Each
`NAME.json` has `forest` (see tests/tree_json), `rows`, perhaps `background`, and of the peer `explanations` (rows by outputs
by features), `expected` (by output), `within` (absolute) and `peer`.
"""

import itertools
import json
import pathlib

import lightgbm
import numpy as np
import shap
import sklearn
import xgboost
from sklearn.ensemble import ExtraTreesRegressor, GradientBoostingRegressor, RandomForestClassifier

HERE = pathlib.Path(__file__).resolve().parent
ROWS = 12


def main():
    random = np.random.default_rng(3)
    rows = np.round(random.normal(size=(400, 8)), 2).astype(np.float32).astype(float)
    goal = rows[:, 0] * rows[:, 1] + np.abs(rows[:, 2]) + random.normal(size=400) / 10
    classes = np.digitize(goal, [0.3, 1.2])
    gaps = np.where(random.random(rows.shape) < 0.2, np.nan, rows)
    codes = np.concatenate([random.integers(0, 12, size=(400, 2)).astype(float), rows[:, 2:]], axis=1)
    codes[random.random(400) < 0.1, 0] = np.nan
    by_code = goal + np.isin(codes[:, 0], [1, 4, 5, 9]) * 2 - np.isin(codes[:, 1], [0, 7]) * 3
    sklearn_boosted(rows, goal)
    sklearn_deep(rows, goal)
    sklearn_classes(rows, classes)
    sklearn_background(rows, goal)
    xgboost_case("xgboost_missing", gaps, goal, {"max_depth": 4, "eta": 0.3}, ["float"] * 8)
    xgboost_case("xgboost_classes", gaps, classes, {"max_depth": 3, "objective": "multi:softmax", "num_class": 3}, ["float"] * 8)
    xgboost_case("xgboost_categories", codes, by_code, {"max_depth": 5, "max_cat_to_onehot": 2, "tree_method": "hist"},
                 ["c", "c"] + ["float"] * 6)
    lightgbm_case("lightgbm_missing", gaps, goal, "auto")
    lightgbm_case("lightgbm_categories", codes, by_code, [0, 1])


def write(name, forest, rows, explanations, expected, within, peer, background=None):
    """`explanations` has rows first, then outputs where there are several, then features."""
    explanations = np.asarray(explanations, dtype=float).reshape(len(rows), -1)
    case = {"peer": peer, "within": within, "forest": forest, "rows": plain(rows), "expected": np.atleast_1d(expected).tolist(),
            "explanations": explanations.tolist()}
    if background is not None:
        case["background"] = plain(background)
    (HERE / f"{name}.json").write_text(json.dumps(case, allow_nan=False).replace("}, {", "},\n{") + "\n")


def plain(rows):
    return [[None if np.isnan(value) else float(value) for value in row] for row in rows]


def sklearn_tree(tree, factor=1.0):
    return {"left": tree.children_left.tolist(), "right": tree.children_right.tolist(), "feature": tree.feature.tolist(),
            "threshold": tree.threshold.tolist(), "value": (tree.value[:, 0, :] * factor).tolist(),
            "cover": tree.weighted_n_node_samples.tolist()}


def sklearn_peer():
    return f"shap {shap.__version__}, scikit-learn {sklearn.__version__}"


def sklearn_boosted(rows, goal):
    model = GradientBoostingRegressor(n_estimators=10, max_depth=5, random_state=0).fit(rows, goal)
    trees = [sklearn_tree(one[0].tree_, model.learning_rate) for one in model.estimators_]
    forest = {"features": 8, "base": [float(model.init_.constant_[0, 0])], "compares_f32": True, "trees": trees}
    explainer = shap.TreeExplainer(model)
    write("sklearn_boosted", forest, rows[:ROWS], explainer.shap_values(rows[:ROWS]), explainer.expected_value, 1e-9,
          sklearn_peer())


def sklearn_deep(rows, goal):
    """Paths that ask for more features than a table holds: needs more of them."""
    wide = np.concatenate([rows, np.roll(rows, 7, axis=0)], axis=1)
    model = ExtraTreesRegressor(n_estimators=2, max_depth=14, random_state=0).fit(wide, goal)
    forest = {"features": 16, "base": [0.0], "compares_f32": True, "average": True,
              "trees": [sklearn_tree(one.tree_) for one in model.estimators_]}
    explainer = shap.TreeExplainer(model)
    write("sklearn_deep", forest, wide[:ROWS], explainer.shap_values(wide[:ROWS]), explainer.expected_value, 1e-9, sklearn_peer())


def sklearn_classes(rows, classes):
    model = RandomForestClassifier(n_estimators=6, max_depth=4, random_state=0).fit(rows, classes)
    forest = {"features": 8, "base": [0.0] * 3, "compares_f32": True, "average": True,
              "trees": [sklearn_tree(one.tree_) for one in model.estimators_]}
    explainer = shap.TreeExplainer(model)
    explanations = np.transpose(explainer.shap_values(rows[:ROWS]), (0, 2, 1))
    write("sklearn_classes", forest, rows[:ROWS], explanations, explainer.expected_value, 1e-9, sklearn_peer())


def sklearn_background(rows, goal):
    """`shap` sums these in single precision, so the definition is summed here and `shap` must be near."""
    rows = rows[:, :6]
    model = GradientBoostingRegressor(n_estimators=8, max_depth=4, random_state=0).fit(rows, goal)
    trees = [sklearn_tree(one[0].tree_, model.learning_rate) for one in model.estimators_]
    forest = {"features": 6, "base": [float(model.init_.constant_[0, 0])], "compares_f32": True, "trees": trees}
    background, rows = rows[100:140], rows[:ROWS]
    explanations = np.array([by_subsets(model.predict, row, background) for row in rows])
    explainer = shap.TreeExplainer(model, background, feature_perturbation="interventional")
    assert np.abs(explainer.shap_values(rows) - explanations).max() < 1e-5
    write("sklearn_background", forest, rows, explanations, model.predict(background).mean(), 1e-9,
          f"Shapley's definition over all subsets and scikit-learn {sklearn.__version__}; shap {shap.__version__} within 1e-5",
          background)


def by_subsets(predict, row, background):
    features = len(row)
    values = {}
    for subset in itertools.product([False, True], repeat=features):
        values[subset] = predict(np.where(subset, row, background)).mean()
    factorial = [1.0]
    for n in range(1, features + 1):
        factorial.append(factorial[-1] * n)
    explanation = np.zeros(features)
    for subset, value in values.items():
        size = sum(subset)
        for feature in range(features):
            if not subset[feature]:
                more = subset[:feature] + (True,) + subset[feature + 1:]
                weight = factorial[size] * factorial[features - 1 - size] / factorial[features]
                explanation[feature] += weight * (values[more] - value)
    return explanation


def xgboost_case(name, rows, goal, parameters, types):
    data = xgboost.DMatrix(rows, goal, feature_types=types, enable_categorical=True)
    model = xgboost.train({"nthread": 1, "seed": 0, "base_score": 0.25, **parameters}, data, 5)
    learner = json.loads(model.save_raw("json"))["learner"]
    outputs = parameters.get("num_class", 1)
    booster = learner["gradient_booster"]["model"]
    trees = [{**xgboost_tree(tree), "output": output} for tree, output in zip(booster["trees"], booster["tree_info"])]
    some = xgboost.DMatrix(rows[:ROWS], feature_types=types, enable_categorical=True)
    peer = model.predict(some, pred_contribs=True).astype(float).reshape(ROWS, outputs, -1)
    # What is left of the peer's expected value when the means of the trees are taken away is the base.
    base = np.float64(np.array(json.loads(learner["learner_model_param"]["base_score"])).flatten())
    base = np.broadcast_to(base, outputs).tolist()
    forest = {"features": rows.shape[1], "base": base, "compares_f32": True, "strict": True, "trees": trees}
    write(name, forest, rows[:ROWS], peer[:, :, :-1], peer[0, :, -1], 2e-5, f"xgboost {xgboost.__version__}")


def xgboost_tree(tree):
    single = lambda numbers: np.array(numbers, dtype=np.float32).astype(float).tolist()
    nodes = len(tree["left_children"])
    categories = [None] * nodes
    left, right, default = list(tree["left_children"]), list(tree["right_children"]), [bool(one) for one in tree["default_left"]]
    for node, first, count in zip(tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"]):
        # Its categories are those that go right: exchange the children.
        categories[node] = sorted(tree["categories"][first:first + count])
        left[node], right[node], default[node] = right[node], left[node], not default[node]
    return {"left": left, "right": right, "feature": tree["split_indices"], "threshold": single(tree["split_conditions"]),
            "value": single(tree["split_conditions"]), "cover": single(tree["sum_hessian"]), "missing_left": default,
            "categories": categories}


def lightgbm_case(name, rows, goal, categorical):
    data = lightgbm.Dataset(rows, goal, categorical_feature=categorical, free_raw_data=False)
    model = lightgbm.train({"num_leaves": 15, "min_data_in_leaf": 5, "seed": 0, "num_threads": 1, "verbose": -1,
                            "min_data_per_group": 5, "cat_smooth": 1}, data, 5)
    trees = [lightgbm_tree(tree["tree_structure"]) for tree in model.dump_model()["tree_info"]]
    forest = {"features": rows.shape[1], "base": [0.0], "compares_f32": False, "trees": trees}
    peer = model.predict(rows[:ROWS], pred_contrib=True)
    write(name, forest, rows[:ROWS], peer[:, :-1], peer[0, -1], 1e-9, f"lightgbm {lightgbm.__version__}")


def lightgbm_tree(root):
    names = ["left", "right", "feature", "threshold", "value", "cover", "missing_left", "categories"]
    tree = {name: [] for name in names}

    def add(node):
        here = len(tree["left"])
        for name in names:
            tree[name].append(None)
        if "leaf_value" in node:
            tree["left"][here], tree["value"][here], tree["cover"][here] = -1, node["leaf_value"], node.get("leaf_count", 1)
            return here
        tree["feature"][here], tree["cover"][here] = node["split_feature"], node["internal_count"]
        if node["decision_type"] == "==":
            tree["categories"][here] = sorted(int(code) for code in node["threshold"].split("||"))
            tree["missing_left"][here] = False
        else:
            tree["threshold"][here] = node["threshold"]
            # Where no gap was seen in training, one is read as 0.
            tree["missing_left"][here] = node["default_left"] if node["missing_type"] == "NaN" else 0 <= node["threshold"]
        tree["left"][here] = add(node["left_child"])
        tree["right"][here] = add(node["right_child"])
        return here

    add(root)
    return tree


if __name__ == "__main__":
    main()
