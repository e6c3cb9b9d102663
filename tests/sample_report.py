"""A run as it may come out, with everything a report can show: 10 kinds of flowers, 400 test images."""

import base64
import io
import math

import numpy as np
from PIL import Image, ImageDraw

from classify.evaluate import confusion, draw_resamples, evaluate, per_class

CLASSES = ["anemone", "bluebell", "buttercup", "cowslip", "crocus", "daffodil", "daisy", "dandelion", "iris", "tulip"]
N_TEST, N_TRAIN = 400, 1600
TAPS = {"layer1:grid:4": 0.61, "layer2:grid:4": 0.74, "layer3:grid:2": 0.86, "layer4:grid:2": 0.905, "penultimate": 0.9}


def measure(value: float, half: float = 0.02) -> dict[str, float]:
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half)}


def answers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw labels, answers and how sure they are: (n,), (n,), (n,)."""
    rng = np.random.default_rng(5)
    shares = np.array([4, 5, 5, 6, 7, 8, 8, 9, 10, 12.0])
    y = rng.choice(len(CLASSES), N_TEST, p=shares / shares.sum())
    sure = rng.beta(6, 1.2, N_TEST) * 0.85 + 0.15
    wrong = rng.random(N_TEST) > 0.25 + 0.75 * sure
    neighbour = (y + rng.choice([1, 1, 1, 2, 5], N_TEST)) % len(CLASSES)
    return y, np.where(wrong, neighbour, y), sure


def predictions() -> list[dict]:
    y, named, sure = answers()
    return [
        {
            "id": f"test/{CLASSES[label]}/{at:04d}.jpg",
            "split": "test",
            "label": CLASSES[label],
            "predicted": CLASSES[code],
            "probability": round(float(share), 6),
        }
        for at, (label, code, share) in enumerate(zip(y, named, sure, strict=True))
    ]


def configurations() -> list[dict]:
    """The taps x transforms of a scan by ridge, and the values of C of the refined ones."""
    rows = []
    for tap, best in TAPS.items():
        for transform, less in (("std", 0.0), ("l2", 0.012), ("pow", 0.006)):
            rows.append(_configuration([tap], transform, "ridge", {"alpha": 31.6}, "scan", best - 0.012 - less))
    for tap in ("layer4:grid:2", "penultimate"):
        for step, C in enumerate((1e-4, 1e-2, 1.0, 100.0)):
            rows.append(_configuration([tap], "std", "logistic", {"C": C}, "refine", TAPS[tap] - 0.01 * abs(step - 1)))
    rows[-1]["converged"] = False
    rows.append(_configuration(["layer3:grid:2", "penultimate"], "std", "logistic", {"C": 0.01}, "refine", 0.913))
    return rows


def _configuration(layers: list[str], transform: str, head: str, params: dict, stage: str, value: float) -> dict:
    measures = {
        "accuracy": measure(value),
        "balanced_accuracy": measure(value - 0.02),
        "macro_f1": measure(value - 0.015),
    }
    cost = {"seconds": round(value / 3, 4), "converged": True, "at_limit": False}
    chosen = {"layers": layers, "layer": " + ".join(layers), "dims": 512 * len(layers), "transform": transform}
    return chosen | {"head": head, "params": params, "stage": stage} | measures | cost


def curve() -> dict:
    a, eta, N = 0.035, 2.1, 1280

    def error(n: float, half: float, off: float = 0.0) -> dict:
        return {"n": n, "error": measure(a + eta / math.sqrt(n) + off, half)}

    return {
        "points": [error(N // part, 0.012 + 0.004 * part, 0.004) | {"runs": part} for part in (8, 4, 2, 1)],
        "a": a,
        "eta": eta,
        "band_sd": 0.008,
        "slope_per_doubling": -eta / math.sqrt(N) * (1 - 0.5**0.5),
        "curve": [error(N / 8 * 32 ** (at / 16), 0.012 + 0.001 * at) for at in range(17)],
        "predictions": [error(2 * N, 0.017), error(4 * N, 0.02)],
        "refused_beyond": 4 * N,
        "verdict": "data-limited",
        "words": "Limited by the number of images: twice the 1280 training images would bring the error down",
    }


def calibration() -> dict:
    y, named, sure = answers()
    hit = y == named
    promised = {"before": np.clip(sure * 1.12, 0, 0.999), "after": sure}
    bins = {side: bins_of(shares, hit) for side, shares in promised.items()}
    numbers = {"nll_before": 0.412, "nll_after": 0.343, "ece_before": 0.058, "ece_after": 0.017}
    numbers |= {"classwise_ece_before": 0.021, "classwise_ece_after": 0.012}
    numbers |= {"brier_before": 0.171, "brier_after": 0.152}
    order = np.argsort(-sure)
    risk = (~hit[order]).cumsum() / np.arange(1, N_TEST + 1)
    return {
        "temperature": 1.37,
        "out_of_fold": numbers,
        "test": numbers | {"reliability_before": bins["before"], "reliability_after": bins["after"]},
        "conformal": {"alpha": 0.1, "threshold": 0.83, "class_conditional": False, "n": N_TRAIN,
                      "coverage": measure(0.915), "mean_size": 1.21},
        "abstain": {"threshold": 0.62, "asked": 0.97, "by": "accuracy", "coverage": 0.86, "accuracy_of_answered": 0.97,
                    "test": {"coverage": measure(0.84), "accuracy_of_answered": measure(0.962)}},
        "open_set": {"k": 12, "threshold": 0.71, "quantile": 0.95, "n_reference": N_TRAIN},
        "risk_coverage": {"aurc": float(risk.mean()), "coverage": (np.arange(1, N_TEST + 1) / N_TEST)[9::10].tolist(),
                          "risk": risk[9::10].tolist()},
    }  # fmt: skip


def bins_of(sure: np.ndarray, hit: np.ndarray) -> list[dict]:
    parts = np.array_split(np.argsort(sure, kind="stable"), 10)
    return [{"confidence": float(sure[at].mean()), "accuracy": float(hit[at].mean()), "count": len(at)} for at in parts]


def metrics() -> dict:
    y, named, _ = answers()
    matrix = confusion(y, named, CLASSES, len(CLASSES))
    test = evaluate(y, named, draw_resamples(N_TEST, None, 0), np.full(N_TEST, 0.343))
    rows = configurations()
    best = rows[-1]
    cv = {name: best[name] for name in ("accuracy", "balanced_accuracy", "macro_f1")} | {
        "log_loss": measure(0.31, 0.03)
    }
    return {
        "features": "flowers/0bee5bac645d",
        "features_key": "0bee5bac645d" + "7c" * 26,
        "run": "runs/flowers",
        "strategy": "linear",
        "task": "single",
        "layers": best["layers"],
        "transform": "std",
        "head": "logistic",
        "params": {"C": 0.01},
        "protocol": None,
        "metric": "accuracy",
        "folds": 5,
        "seed": 0,
        "classes": CLASSES,
        "n_train": N_TRAIN,
        "n_test": N_TEST,
        "n_bad": 3,
        "n_unlabelled": 0,
        "split": "the given test split; everything else, val included, trains",
        "warnings": [
            "6 of 400 test images are training images too: the test is too easy",
            "1 of 24 configurations did not converge",
        ],
        "notes": ["the features fit into memory: 52 MB of 15.3 GB", "scan by exact leave-one-out ridge on the cpu"],
        "selection": {
            "metric": "accuracy",
            "n_configurations": len(rows),
            "naive": best["accuracy"],
            "corrected": measure(0.898, 0.017),
            "rule": "one standard error: of those that are not clearly worse than the best, the cheapest",
        },
        "search": rows,
        "per_layer": [max((row for row in rows if row["layers"] == [tap]), key=accuracy) for tap in TAPS],
        "imbalance": {"ratio": 2.9, "leads": "accuracy"},
        "grouping": {
            "n_groups": 212,
            "ungrouped": measure(0.951),
            "grouped": measure(0.913),
            "words": "212 groups: 95.1% where a group may be trained and tested on, 91.3% where it may not",
        },
        "learning_curve": curve(),
        "hygiene": hygiene(),
        "cv": cv,
        "test": test,
        "baseline": float((y == len(CLASSES) - 1).mean()),
        "confusion": matrix,
        "per_class": per_class(matrix),
        "calibration": calibration(),
        "advice": None,
        "seconds": 41.382,
        "versions": {"offshelf": "0.1.0", "python": "3.12.4", "torch": "2.11.0", "scikit-learn": "1.9.1"},
        "command": ["offshelf", "fit", "flowers", "--out", "runs/flowers of May", "--data", "photos/", "--seed", "0"],
    }  # fmt: skip


def accuracy(row: dict) -> float:
    return row["accuracy"]["value"]


def hygiene() -> dict:
    return {
        "duplicates": {
            "searched": True,
            "n_pairs": 14,
            "n_groups": 13,
            "n_cross_split": 6,
            "n_leaked": 6,
            "confirmed_by": "pixels",
            "without_cross_split": {"accuracy": measure(0.861)},
            "words": "13 images are there more than once: 4 pairs are equal, 10 nearly so",
        },
        "label_issues": {
            "n": 31,
            "n_checked": N_TRAIN,
            "words": "31 of 1600 labels are probably wrong (confident learning on predictions out of fold)",
        },
        "conflicts": {"n": 2},
        "dead_features": {"n": 3, "of": 2816},
        "outliers": {"n": 5, "among": "all"},
    }


def findings() -> dict[str, list[dict]]:
    rng = np.random.default_rng(7)
    suspects = []
    for at in range(31):
        label, other = rng.choice(len(CLASSES), 2, replace=False)
        id_ = f"train/{CLASSES[label]}/{900 + at:04d}.jpg"
        suspects.append({"id": id_, "split": "train", "label": CLASSES[label], "suggested": CLASSES[other],
                         "probability_of_label": round(0.001 + 0.004 * at, 6), "score": 0.01 * at})  # fmt: skip
    pairs = [_pair(at, rng) for at in range(14)]
    outliers = [{"id": f"train/iris/{700 + at:04d}.jpg", "split": "train", "label": "iris", "distance": 1.3 - 0.05 * at,
                 "score": 8.0 - at} for at in range(5)]  # fmt: skip
    keys = ("id_a", "id_b", "label_a", "label_b", "kind")
    return {
        "suspect_labels": suspects,
        "duplicates": pairs,
        "conflicts": [{key: pair[key] for key in keys} for pair in pairs if pair["label_a"] != pair["label_b"]],
        "dead_features": [{"layer": "layer1:grid:4", "feature": at, "value": 0.0} for at in (3, 77, 512)],
        "outliers": outliers,
    }


def _pair(at: int, rng: np.random.Generator) -> dict:
    label = CLASSES[rng.integers(len(CLASSES))]
    splits = ("train", "test") if at < 6 else ("train", "train")
    other = "tulip" if at in (2, 9) and label != "tulip" else label
    return {"id_a": f"{splits[0]}/{label}/{800 + at:04d}.jpg", "id_b": f"{splits[1]}/{other}/{850 + at:04d}.jpg",
            "split_a": splits[0], "split_b": splits[1], "label_a": label, "label_b": other,
            "distance": 0.0 if at < 4 else 0.01 * at, "ncc": 1.0 if at < 4 else 0.97,
            "kind": "exact" if at < 4 else "near"}  # fmt: skip


def thumbnails(ids: list[str]) -> dict[str, str]:
    """Draw a flower for each id: as many petals, and as coloured, as the number in its name says."""
    return {id_: _flower(at) for at, id_ in enumerate(ids)}


def _flower(seed: int) -> str:
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (96, 72), (40 + seed % 40, 90 + seed % 50, 50))
    draw = ImageDraw.Draw(image)
    petals, colour = int(rng.integers(5, 13)), tuple(int(part) for part in rng.integers(120, 256, 3))
    for petal in range(petals):
        turn = 2 * math.pi * petal / petals
        x, y = 48 + 20 * math.cos(turn), 36 + 20 * math.sin(turn)
        draw.ellipse((x - 9, y - 9, x + 9, y + 9), fill=colour)
    draw.ellipse((39, 27, 57, 45), fill=(240, 200, 60))
    return data_uri(image)


def data_uri(image: Image.Image) -> str:
    written = io.BytesIO()
    image.save(written, format="JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"


def old_metrics() -> dict:
    """A run of version 0.1: without what later versions add."""
    new = metrics()
    later = (
        "transform",
        "task",
        "protocol",
        "notes",
        "selection",
        "imbalance",
        "grouping",
        "learning_curve",
        "hygiene",
    )
    kept = {name: value for name, value in new.items() if name not in (*later, "command")}
    names = ("temperature", "out_of_fold", "test")
    kept["calibration"] = {name: new["calibration"][name] for name in names}
    for part in ("out_of_fold", "test"):
        numbers = ("nll_before", "nll_after", "ece_before", "ece_after")
        kept["calibration"][part] = {name: new["calibration"][part][name] for name in numbers}
    rows = [{k: v for k, v in row.items() if k not in ("layers", "transform", "stage")} for row in new["search"][:-1]]
    kept |= {"layers": ["penultimate"], "search": rows, "per_layer": rows[: 3 * len(TAPS) : 3]}
    return kept


def multi_metrics() -> dict:
    """A run with several labels an image: measured by ranking, without a confusion matrix."""
    kept = {name: value for name, value in metrics().items() if name not in ("confusion", "imbalance", "baseline")}
    test = {"map": measure(0.78), "micro_f1": measure(0.74), "macro_f1": measure(0.7), "subset_accuracy": measure(0.41)}
    rows = [
        {"class": name, "support": 40 + at, "ap": 0.7 + 0.01 * at, "precision": 0.7, "recall": None, "f1": 0.6,
         "threshold": 0.4}
        for at, name in enumerate(CLASSES)
    ]  # fmt: skip
    shares = {f"{name}_{side}": 0.1 for name in ("nll", "ece") for side in ("before", "after")}
    calibrated = {"temperatures": [1.2] * len(CLASSES), "out_of_fold": shares, "test": shares}
    selection = {
        "metric": "map",
        "n_configurations": 30,
        "naive": measure(0.8),
        "corrected": measure(0.77),
        "rule": "r",
    }
    return kept | {"task": "multi", "metric": "map", "test": test, "cv": test, "per_class": rows, "baseline": 0.21,
                   "confusion": None, "calibration": calibrated, "selection": selection, "learning_curve": None,
                   "hygiene": None, "grouping": None}  # fmt: skip


def multi_predictions() -> list[dict]:
    """Answers as cells of several labels, with the probability of every class."""
    cells = ["iris|tulip", "-", "daisy", "daisy|iris|tulip"]
    rows = []
    for at in range(40):
        shares = {name: round(((at * 7 + code * 3) % 10) / 10, 6) for code, name in enumerate(CLASSES)}
        said = {"label": cells[at % 4], "predicted": cells[(at // 2) % 4], "probabilities": shares}
        rows.append({"id": f"{at:04d}.jpg", "split": "test", **said})
    return rows


def tuned_metrics() -> dict:
    """A run whose network was trained further: what is said of it, over what is said of its probe."""
    new = metrics()
    probe = {name: new[name] for name in ("layers", "transform", "head", "params", "selection", "grouping", "cv")}
    probe |= {"dims": 512, "test": new["test"] | {"accuracy": measure(0.82)}, "seconds": 12.5}
    looks = [
        {"step": 50 * at, "rate": 1e-3, "loss": 0.9 - 0.1 * at if at else None,
         "val_loss": 0.6 + 0.02 * (at - 4) ** 2, "val_accuracy": 0.8 + 0.01 * at, "seconds": 2.0 * at}
        for at in range(7)
    ]  # fmt: skip
    tried = [
        {"rate": rate, "weight_decay": 5e-4, "steps": steps, "best_step": steps, "loss": loss, "accuracy": 0.9,
         "seconds": steps / 10, "diverged": loss is None, "chosen": rate == 1e-3}
        for rate, steps, loss in ((3e-4, 56, 0.71), (1e-3, 300, 0.6), (3e-3, 20, None))
    ]  # fmt: skip
    row = {"seed": 0, "n_train": 1360, "n_val": 240, "steps": 300, "best_step": 200, "seconds": 30.0, "val_loss": 0.6,
           "val_accuracy": 0.91, "share_of_end": None}  # fmt: skip
    trainings = [
        row | {"name": "without fold 1", "deployed": False},
        row | {"name": "on all images, 1 of 2", "deployed": True},
        row | {"name": "on all images, 2 of 2", "deployed": False, "seed": 1},
    ]
    digest = "5e" * 32
    return new | {
        "strategy": "lp-ft",
        "layers": ["penultimate"],
        "transform": "none",
        "head": "linear",
        "params": {"rate": 1e-3, "weight_decay": 5e-4, "steps": 200},
        "selection": None,
        "grouping": None,
        "probe": probe,
        "gain": {
            "out_of_fold": {"accuracy": {"value": 0.04, "low": 0.02, "high": 0.06, "p": 0.001}, "n": 320},
            "test": {"accuracy": {"value": 0.05, "low": 0.01, "high": 0.09, "p": 0.01}, "n": N_TEST},
        },
        "finetune": {
            "strategy": "lp-ft",
            "tap": "penultimate",
            "kept_until": "layer2",
            "cached": False,
            "plan": {"bn": "frozen", "steps": 300},
            "search": tried,
            "chosen": {"rate": 1e-3, "weight_decay": 5e-4},
            "trainings": trainings,
            "history": looks,
            "seeds": {"metric": "accuracy", "values": [0.87, 0.89], "mean": 0.88, "sd": 0.0141},
            "frozen": {"parameters": 683072, "trained": 10500000, "before": digest, "after": digest},
            "mirror": {"flip": False, "words": "Of 500 images the probe names 82.0% right, mirrored 61.0%"},
        },
    }


def protocol_metrics() -> dict:
    """A run by a published protocol, of which no bundle is kept."""
    new = metrics()
    nothing = ("cv", "selection", "grouping", "learning_curve", "hygiene", "calibration", "advice")
    tried = [{"params": {"C": 10.0**power}, "score": 0.8 + 0.01 * power, "converged": True} for power in range(-3, 3)]
    protocol = {"protocol": "kornblith", "citation": "Kornblith et al. 2019", "metric": "balanced_accuracy",
                "value": new["test"]["balanced_accuracy"], "tried": tried, "kept": False}  # fmt: skip
    kept = {name: value for name, value in new.items() if name != "folds"}
    return kept | dict.fromkeys(nothing) | {"protocol": protocol, "per_layer": [], "search": [], "head": "kornblith"}
