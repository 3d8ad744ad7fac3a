"""Expected numbers of the other libraries, for samples that both sides make by the same formula. See README.md."""

import json
import pathlib
import warnings

import numpy as np
import pandas as pd
from fairlearn import metrics as fm
from scipy import special, stats
from scipy.spatial import distance
from sklearn import metrics as sm

warnings.simplefilter("ignore")
HERE = pathlib.Path(__file__).resolve().parent
CASES = []


def sample(count, seed, levels=0, scale=1.0, shift=0.0):
    """A linear congruential generator (Numerical Recipes' constants): exact in every language."""
    state, values = seed, []
    for _ in range(count):
        state = (1664525 * state + 1013904223) % 2**32
        unit = state / 2**32
        unit = float(np.floor(unit * levels)) if levels else unit
        values.append(unit * scale + shift)
    return np.array(values)


def case(what, samples, expected, **parameters):
    fields = ("count", "seed", "levels", "scale", "shift")
    full = {name: dict(zip(fields, list(given) + [0, 1.0, 0.0][len(given) - 2:])) for name, given in samples.items()}
    shown = {name: repr(float(value)) for name, value in expected.items()}
    CASES.append({"what": what, "samples": full, "parameters": parameters, "expected": shown})


def made(samples):
    return {name: sample(*given) for name, given in samples.items()}


def ks():
    sizes = [(5, 7), (1, 1), (1, 9), (40, 30), (100, 100), (150, 370), (1000, 37), (700, 800), (1000, 1000), (10, 9999),
             (3000, 4111), (9000, 9001), (12000, 300), (15000, 11000)]
    for first, second in sizes:
        for levels, scale, shift in [(0, 1.0, 0.0), (0, 0.9, 0.02), (20, 1.0, 1.0), (0, 1.0, 0.5)]:
            samples = {"first": (first, 1), "second": (second, 2, levels, scale, shift)}
            if levels:
                samples["first"] = (first, 1, levels, 1.0, 0.0)
            values = made(samples)
            for alternative in ["two-sided", "less", "greater"]:
                for method in ["auto", "exact", "asymp"]:
                    found = stats.ks_2samp(values["first"], values["second"], alternative, method)
                    if np.isnan(found.pvalue):
                        continue
                    case("ks", samples, {"statistic": found.statistic, "p_value": found.pvalue},
                         alternative=alternative, method=method)


def one_column():
    for count, levels, scale, shift in [(1, 0, 1.0, 0.0), (2, 0, 1.0, 0.0), (1000, 0, 1.0, 0.0), (70001, 0, 5.0, -2.0),
                                        (5000, 7, 1.0, 0.0), (3000, 0, 1e-3, 1e6), (3000, 0, 1e-310, 0.0),
                                        (3000, 0, 1e70, 0.0)]:
        samples = {"values": (count, 3, levels, scale, shift)}
        values = made(samples)["values"]
        precise = values.astype(np.longdouble)
        off = precise - precise.mean()
        expected = {"mean": precise.mean(), "std": np.sqrt((off**2).mean()), "min": values.min(), "max": values.max()}
        if count > 2 and scale > 1e-300:
            expected["skewness"] = (off**3).mean() / (off**2).mean()**1.5
            expected["kurtosis"] = (off**4).mean() / (off**2).mean()**2 - 3
        case("moments", samples, expected)
        levels_asked = [0.0, 0.001, 0.1, 0.25, 1 / 3, 0.5, 0.77, 0.9, 0.999, 1.0]
        found = np.quantile(values, levels_asked)
        case("quantiles", samples, {repr(level): value for level, value in zip(levels_asked, found)})


def two_columns():
    for first, second in [((500, 4), (300, 5, 0, 1.1, 0.1)), ((900, 6, 12), (1200, 7, 15)), ((80000, 8), (70000, 9, 0, 0.9, 0.0))]:
        samples = {"first": first, "second": second}
        a, b = made(samples).values()
        found = stats.wasserstein_distance(a, b)
        case("wasserstein", samples, {"distance": found, "normed": found / max(a.std(), 0.001)})
        for bins in [5, 10, 40]:
            breaks = np.unique(np.percentile(a, np.linspace(0, 100, bins + 1)))
            breaks[0], breaks[-1] = -np.inf, np.inf
            case("jeffreys", samples, {"divergence": jeffreys(a, b, breaks)}, bins=bins, binning="quantile")
            breaks = np.linspace(a.min(), a.max(), bins + 1)
            breaks[0], breaks[-1] = -np.inf, np.inf
            case("jeffreys", samples, {"divergence": jeffreys(a, b, breaks)}, bins=bins, binning="uniform")
    for count, levels in [(50, 0), (20000, 0), (5000, 9)]:
        samples = {"first": (count, 10, levels), "second": (count, 11, levels)}
        x, y = made(samples).values()
        case("correlation", samples, {"pearson": stats.pearsonr(x, y)[0], "spearman": stats.spearmanr(x, y)[0]})
        p, q = x + 0.0, y + 0.0
        expected = {"divergence": distance.jensenshannon(p, q, 2)**2, "distance": distance.jensenshannon(p, q, 2)}
        p, q = p / p.sum(), q / q.sum()
        expected |= {"hellinger": np.sqrt(((np.sqrt(p) - np.sqrt(q))**2).sum() / 2), "largest": abs(p - q).max()}
        case("shares", samples, expected)


def jeffreys(a, b, breaks):
    r, c = np.histogram(a, breaks)[0] / len(a), np.histogram(b, breaks)[0] / len(b)
    r, c = np.where(r == 0, 1e-4, r), np.where(c == 0, 1e-4, c)
    return ((c - r) * np.log(c / r)).sum()


def classes():
    for count, levels in [(40, 0), (3000, 0), (3000, 11), (150000, 0)]:
        samples = {"labels": (count, 12, 2), "scores": (count, 13, levels), "others": (count, 14, levels),
                   "weights": (count, 15)}
        values = made(samples)
        y, s, o, w = values["labels"], values["scores"], values["others"], values["weights"]
        variance = delong(y, s, o)
        case("area", samples, {"area": sm.roc_auc_score(y, s), "weighted": sm.roc_auc_score(y, s, sample_weight=w)} | variance)
        p = s / max(s.max(), 1.0)
        which = np.minimum((p * 10).astype(int), 9) if levels == 0 else np.searchsorted(np.arange(1, 10) / 10, p, side="right")
        error = sum(abs(p[which == k].mean() - y[which == k].mean()) * (which == k).mean() for k in range(10) if (which == k).any())
        case("calibration", samples, {"brier": sm.brier_score_loss(y, p), "error": error}, divisor=max(s.max(), 1.0))


def delong(y, s, o):
    ones, zeros = y == 1, y == 0
    above = [stats.rankdata(np.r_[k[ones], k[zeros]])[:ones.sum()] - stats.rankdata(k[ones]) for k in (s, o)]
    below = [stats.rankdata(np.r_[k[zeros], k[ones]])[:zeros.sum()] - stats.rankdata(k[zeros]) for k in (s, o)]
    above = np.array(above) / zeros.sum()
    below = 1 - np.array(below) / ones.sum()
    both = np.cov(above) / ones.sum() + np.cov(below) / zeros.sum()
    error = np.sqrt(both[0, 0] + both[1, 1] - 2 * both[0, 1])
    z = abs(above[0].mean() - above[1].mean()) / error
    return {"first_error": np.sqrt(both[0, 0]), "difference_error": error, "p_value": 2 * stats.norm.sf(z)}


def groups():
    for count, levels in [(200, 3), (20000, 40)]:
        samples = {"labels": (count, 16, 2), "predictions": (count, 17, 2), "first": (count, 18, levels), "second": (count, 19, 4),
                   "weights": (count, 20)}
        values = made(samples)
        y, p = values["labels"].astype(int), values["predictions"].astype(int)
        keys = pd.DataFrame({"first": values["first"].astype(int), "second": values["second"].astype(int)})
        for weights in [None, values["weights"]]:
            more = {} if weights is None else {"sample_weight": weights}
            each = {} if weights is None else {"sample_params": {name: more for name in ("rate", "tpr", "fpr", "accuracy")}}
            frame = fm.MetricFrame(
                metrics={"rate": fm.selection_rate, "tpr": fm.true_positive_rate, "fpr": fm.false_positive_rate,
                         "accuracy": sm.accuracy_score}, y_true=y, y_pred=p, sensitive_features=keys, **each)
            expected = {"groups": len(frame.by_group), "odds_difference": fm.equalized_odds_difference(y, p, sensitive_features=keys, **more),
                        "odds_ratio": fm.equalized_odds_ratio(y, p, sensitive_features=keys, **more),
                        "rate_ratio": fm.demographic_parity_ratio(y, p, sensitive_features=keys, **more),
                        "rate_difference": fm.demographic_parity_difference(y, p, sensitive_features=keys, **more)}
            expected |= {f"overall_{name}": frame.overall[name] for name in frame.overall.index}
            expected |= {f"last_{name}": frame.by_group.iloc[-1][name] for name in frame.overall.index}
            case("groups", samples, expected, weighted=weights is not None)


def vectors():
    for rows, width in [(30, 3), (500, 17)]:
        samples = {"first": (rows * width, 21), "second": (rows * width + width, 22, 0, 0.8, 0.3)}
        a, b = (values.reshape(-1, width) for values in made(samples).values())
        centre, other = a.mean(0), b.mean(0)
        case("centroid", samples, {"cosine": distance.cosine(centre, other), "euclidean": np.linalg.norm(centre - other)}, width=width)
        pooled = np.r_[a[:500], b[:500]] if len(b) <= 500 else None
        if pooled is not None:
            within = distance.pdist(pooled)
            sigma = float(np.median(within))
            k = lambda x, y: np.exp(-distance.cdist(x, y, "sqeuclidean") / 2 / sigma**2)
            xx, yy, xy = k(a, a), k(b, b), k(a, b)
            n, m = len(a), len(b)
            unbiased = (xx.sum() - n) / n / (n - 1) + (yy.sum() - m) / m / (m - 1) - 2 * xy.mean()
            half = min(n, m) // 2
            x1, x2, y1, y2 = a[0:2 * half:2], a[1:2 * half:2], b[0:2 * half:2], b[1:2 * half:2]
            g = lambda u, v: np.exp(-((u - v)**2).sum(1) / 2 / sigma**2)
            case("discrepancy", samples, {"bandwidth": sigma, "biased": xx.mean() + yy.mean() - 2 * xy.mean(), "unbiased": unbiased,
                                          "linear": (g(x1, x2) + g(y1, y2) - g(x1, y2) - g(x2, y1)).mean()}, width=width)


def tables():
    for rows, columns in [(2, 2), (3, 5), (20, 20), (1, 4)]:
        samples = {"cells": (rows * columns, 23, 60, 1.0, 1.0)}
        table = made(samples)["cells"].reshape(rows, columns)
        for correction in [True, False]:
            found = stats.chi2_contingency(table, correction)
            case("chi_square", samples, {"statistic": found.statistic, "p_value": found.pvalue, "degrees": found.dof},
                 columns=columns, correction=correction)


def special_functions():
    """Tables for unit tests, as Rust."""
    source = HERE.parent.parent / "src"
    rows = []
    for n in [1, 2, 5, 10, 50, 139, 140, 141, 500, 1000, 5000, 20000, 100000, 200000, 1000000, 5000000]:
        scaled = [0.05, 0.2, 0.5, 0.7, 0.76, 1.0, 1.5, 2.0, 2.19, 2.21, 3.0, 3.9, 4.1, 6, 10, 17, 25, 50, 100, 200, 350]
        some = {(value / n)**0.5 for value in scaled} | {0.3 / n, 0.6 / n, 0.9 / n, 1 / n, 1.5 / n, 0.49, 0.51, 0.75, 1 - 0.5 / n}
        found = [(x, n, stats.kstwo.sf(x, n)) for x in sorted(some) if 0 < x < 1]
        rows += [row for row in found if row[2] > 1e-290]
    write_rust(source / "kolmogorov_expected.rs", "scipy.stats.kstwo.sf(x, n), scipy 1.17.1: x, n, probability.", rows)
    factors = [0.001, 0.1, 0.5, 0.9, 0.99, 1, 1.01, 1.1, 1.5, 2, 3, 10]
    rows = [(a, a * f, special.gammaincc(a, a * f)) for a in [0.5, 1, 1.5, 3, 10, 50.5, 500, 5000, 500000] for f in factors]
    rows = [row for row in rows if row[2] > 1e-280]
    write_rust(source / "special_expected.rs", "scipy.special.gammaincc(a, x), scipy 1.17.1: a, x, value.", rows)


def write_rust(path, what, rows):
    lines = "".join(f"    ({', '.join(repr(float(value)) for value in row)}),\n" for row in rows)
    path.write_text(f"// {what}\n[\n{lines}]\n")


for make in (ks, one_column, two_columns, classes, groups, vectors, tables, special_functions):
    make()
lines = ",\n".join(json.dumps(entry) for entry in CASES)
(HERE / "expected.json").write_text(f"[\n{lines}\n]\n")
