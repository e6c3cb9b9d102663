"""The page a run leaves: one HTML file that says in words what was found, and shows what that rests on."""

from collections.abc import Iterable, Sequence
from typing import Any

from classify.plots import Point, dot_plot, printable

MAX_MATRIX = 25
MAX_CONFUSIONS = 30
MAX_WORST = 12
Metrics = dict[str, Any]

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title><style>
:root{{color-scheme:light dark;
--ink:#1d2733;--soft:#5b6775;--line:#d5dbe2;--back:#fff;--shade:47,111,179;--warn:#fff4e0}}
@media(prefers-color-scheme:dark){{:root{{
--ink:#e4e9f0;--soft:#9aa7b5;--line:#37414d;--back:#14181d;--shade:122,176,234;--warn:#3a2d14}}}}
body{{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);
max-width:56rem;margin:0 auto;padding:1rem}}
h1{{font-size:1.5rem;line-height:1.25}}h2{{font-size:1.15rem;margin-top:2.2rem}}.verdict{{font-size:1.15rem}}
.soft,caption{{color:var(--soft)}}.warn{{background:var(--warn);padding:.5rem .8rem;border-radius:.4rem}}
.wide{{overflow-x:auto}}table{{border-collapse:collapse;font-variant-numeric:tabular-nums}}caption{{text-align:left}}
th,td{{padding:.2rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}}
th:first-child,td:first-child{{text-align:left}}code{{font-size:.9em;overflow-wrap:anywhere}}
</style></head><body>
{body}
</body></html>
"""


def render(metrics: Metrics, predictions: Sequence[dict[str, Any]]) -> str:
    """Write the page from the content of metrics.json and the rows of predictions.csv."""
    sections = [_verdict(metrics), _taps(metrics), _measures(metrics), _confusion(metrics), _classes(metrics)]
    sections += [_calibration(metrics), _worst(predictions), _search(metrics), _reproduce(metrics)]
    return PAGE.format(title=f"{printable(metrics['features'])} · offshelf", body="\n".join(sections))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f} %"


def _interval(found: dict[str, float]) -> str:
    return f"{_percent(found['value'])} ({_percent(found['low'])} to {_percent(found['high'])})"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))


def _params(params: dict[str, Any]) -> str:
    return ", ".join(f"{printable(name)} = {_number(value)}" for name, value in params.items()) or "nothing to tune"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """Lay out cells that are HTML already; a cell that starts with <td or <th is kept as it is."""
    lines = ["".join(c if c.startswith(("<td", "<th")) else f"<td>{c}</td>" for c in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    said = f"<caption>{caption}</caption>" if caption else ""
    return f'<div class="wide"><table>{said}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _verdict(m: Metrics) -> str:
    accuracy = m["test"]["accuracy"]
    beats = "clearly better than" if accuracy["low"] > m["baseline"] else "not clearly better than"
    warned = "".join(f'<p class="warn">{printable(text)}</p>' for text in m["warnings"])
    left_out = f"{m['n_bad']} images could not be read and {m['n_unlabelled']} have no label; they were left out."
    return (
        f"<h1>{printable(m['features'])}: {_percent(accuracy['value'])} right</h1>"
        f'<p class="verdict">Of {m["n_test"]} test images that it had not seen, the classifier names '
        f"<strong>{_percent(accuracy['value'])}</strong> right; with 95 % confidence the true share lies between "
        f"{_percent(accuracy['low'])} and {_percent(accuracy['high'])}. That is {beats} always giving the class that "
        f"is commonest in training ({_percent(m['baseline'])}).</p><p>It tells {len(m['classes'])} classes apart: "
        f"a {printable(m['head'])} head ({_params(m['params'])}) on the layer "
        f"<code>{printable(', '.join(m['layers']))}</code>, trained on {m['n_train']} images.</p>"
        f"<p>How it was split: {printable(m['split'])}. "
        f"{left_out if m['n_bad'] or m['n_unlabelled'] else ''}</p>{warned}"
    )


def tap_plot(metrics: Metrics) -> str:
    """Draw what each layer is good for: its best accuracy out of fold, shallow to deep, as an SVG document."""
    chosen = metrics["layers"][0]
    points = [
        Point(row["layer"], found["value"], found["low"], found["high"], row["layer"] == chosen)
        for row in metrics["per_layer"]
        for found in [row["accuracy"]]
    ]
    return dot_plot(points, f"{metrics['features']}: cross-validated accuracy of each layer")


def _taps(m: Metrics) -> str:
    rows = [
        (printable(row["layer"]), str(row["dims"]), _params(row["params"]), _interval(row["accuracy"]))
        for row in m["per_layer"]
    ]
    table = _table(("layer", "numbers per image", "best setting", "accuracy (95 % interval)"), rows)
    return (
        f"<h2>Layer by layer</h2>{tap_plot(m)}<details><summary>as a table</summary>{table}</details>"
        f'<p class="soft">Shallow to deep, by {m["folds"]}-fold cross-validation on the training images; '
        f"★ was chosen by {printable(m['metric'])}. A best of several is a little too good: believe the test.</p>"
    )


def _measures(m: Metrics) -> str:
    rows = []
    for name, found in m["test"].items():
        shown = _interval if name != "log_loss" else lambda f: f"{f['value']:.3f} ({f['low']:.3f} to {f['high']:.3f})"
        rows.append((name.replace("_", " "), shown(found), shown(m["cv"][name])))
    return "<h2>Measures</h2>" + _table(("", "test (95 % interval)", "cross-validation"), rows)


def _confusion(m: Metrics) -> str:
    found = m["confusion"]
    if len(found["true"]) > MAX_MATRIX:
        return "<h2>Most frequent confusions</h2>" + _top_confusions(found)
    rows = []
    for name, counts in zip(found["true"], found["counts"], strict=True):
        most = max(1, sum(counts))
        cells = [f'<td style="background:rgba(var(--shade),{0.75 * n / most:.2f})">{n or ""}</td>' for n in counts]
        rows.append([f'<th scope="row">{printable(name)}</th>', *cells])
    head = ["is ↓ named →", *map(printable, found["predicted"])]
    return "<h2>What is taken for what</h2>" + _table(head, rows, "test images; shaded by share of the row")


def _top_confusions(found: dict[str, Any]) -> str:
    pairs = [
        (count, true, named)
        for true, counts in zip(found["true"], found["counts"], strict=True)
        for named, count in zip(found["predicted"], counts, strict=True)
        if count and true != named
    ]
    top = sorted(pairs, key=lambda pair: -pair[0])[:MAX_CONFUSIONS]
    rows = [(printable(true), printable(named), str(count)) for count, true, named in top]
    return _table(("is", "named", "images"), rows, f"{len(top)} of {len(pairs)} pairs") if top else "<p>None.</p>"


def _classes(m: Metrics) -> str:
    rows = [
        (printable(row["class"]), str(row["support"]), *(_percent(row[name]) for name in ("recall", "precision", "f1")))
        for row in m["per_class"]
    ]
    head = ("class", "test images", "found (recall)", "right when named (precision)", "F1")
    return "<h2>Class by class</h2>" + _table(head, rows)


def _calibration(m: Metrics) -> str:
    found = m["calibration"]
    rows = [
        (where, *(f"{found[part][name]:.3f}" for name in ("nll_before", "nll_after", "ece_before", "ece_after")))
        for where, part in (("out of fold", "out_of_fold"), ("test", "test"))
    ]
    return (
        f"<h2>Are its probabilities honest?</h2><p>On the test images they are off by "
        f"{_percent(found['test']['ece_after'])} on average (expected calibration error), "
        f"after a temperature of {found['temperature']:.3g}.</p>"
        + _table(("", "log-loss before", "after", "calibration error before", "after"), rows)
    )


def _worst(predictions: Sequence[dict[str, Any]]) -> str:
    wrong = sorted((p for p in predictions if p["label"] != p["predicted"]), key=lambda p: -float(p["probability"]))
    if not wrong:
        return "<h2>Worst errors</h2><p>No test image was named wrong.</p>"
    rows = [
        (printable(p["id"]), printable(p["label"]), printable(p["predicted"]), _percent(float(p["probability"])))
        for p in wrong[:MAX_WORST]
    ]
    caption = f"{len(rows)} of {len(wrong)} wrong answers, the surest first: look here for wrong labels"
    return "<h2>Worst errors</h2>" + _table(("image", "is", "named", "probability"), rows, caption)


def _search(m: Metrics) -> str:
    rows = [
        (
            printable(row["layer"]),
            _params(row["params"]),
            *(_interval(row[name]) for name in ("accuracy", "balanced_accuracy", "macro_f1")),
            f"{row['seconds']:.2f}",
            ("yes" if row["converged"] else "no") + (", at the limit" if row["at_limit"] else ""),
        )
        for row in m["search"]
    ]
    head = ("layer", "setting", "accuracy", "balanced accuracy", "macro F1", "seconds", "converged")
    table = _table(head, rows)
    return f"<h2>Everything tried</h2><details><summary>{len(rows)} configurations</summary>{table}</details>"


def _reproduce(m: Metrics) -> str:
    used = ", ".join(f"{printable(name)} {printable(version)}" for name, version in m["versions"].items())
    return (
        f"<h2>To do it again</h2><p>Features <code>{printable(m['features'])}</code>, key "
        f"<code>{printable(m['features_key'])}</code>; seed {m['seed']}, {m['folds']} folds, "
        f"chosen by {printable(m['metric'])}; {m['seconds']:.1f} s.</p>"
        f'<p class="soft">{used}</p>'
    )
