"""The figures as plots for the README: images per second, ours and theirs, and the limit."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.extract.harness import Numbers
from classify.plots import STYLE, printable

LEFT, RIGHT, TOP, ROW, BOTTOM, WIDTH = 170, 110, 52, 26, 34, 720
OWN_STYLE = """
.offshelf-plot .theirs{fill:#8793a1}.offshelf-plot .ours{fill:#2f6fb3}
.offshelf-plot .limit{stroke:#c2571a;stroke-width:2;stroke-dasharray:5 4}
@media(prefers-color-scheme:dark){.offshelf-plot .theirs{fill:#77828f}.offshelf-plot .ours{fill:#7ab0ea}
.offshelf-plot .limit{stroke:#f09a62}}
"""
PLOTTED = {"resnet18": "ResNet-18", "resnet50": "ResNet-50"}


def write_plots(figures: Numbers, folder: Path) -> None:
    """Write `extract-NAME.svg` for the networks of the README, where they were measured."""
    for each in figures["measurements"]:
        if each["name"] in PLOTTED and "rows" in each:
            title = f"{PLOTTED[each['name']]}: images per second, {each['machine'].rpartition(', ')[2]}"
            path = folder / f"extract-{each['name']}.svg"
            path.write_text(bar_plot(each["rows"], each["facts"]["limits"], title) + "\n", encoding="utf-8")


def bar_plot(rows: Sequence[Numbers], limits: Numbers, title: str) -> str:
    """Draw a bar with its spread for every runner, and the limits as lines: -> an SVG document."""
    shown = [row for row in rows if "images_per_s" in row]
    height = TOP + ROW * len(shown) + BOTTOM
    edges = [row["images_per_s"]["high"] for row in shown] + [each["limit"] for each in limits.values()]
    scale = (WIDTH - LEFT - RIGHT) / max(edges)
    parts = [_bar(row, TOP + ROW * at, scale) for at, row in enumerate(shown)]
    parts += [_limit(name, each["limit"], height, scale) for name, each in limits.items()]
    label = printable(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="offshelf-plot" role="img" aria-label="{label}" '
        f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"><style>{STYLE}{OWN_STYLE}</style>'
        f'<text x="8" y="20" font-weight="600">{label}</text>{"".join(parts)}</svg>'
    )


def _bar(row: Numbers, y: int, scale: float) -> str:
    rate, ratio = row["images_per_s"], row["ratio"]["value"]
    kind = "ours" if row["who"].startswith("ours") else "theirs"
    low, middle, high = (round(LEFT + scale * rate[name], 1) for name in ("low", "value", "high"))
    who, at = printable(row["who"]), y + ROW // 2
    said = f"{who}: {rate['value']:.0f} images per second, {rate['low']:.0f} to {rate['high']:.0f}; {ratio:.2f} x naive"
    return (
        f'<g><title>{said}</title><text x="{LEFT - 10}" y="{at + 4}" text-anchor="end">{who}</text>'
        f'<rect class="{kind}" x="{LEFT}" y="{y + 4}" width="{middle - LEFT:.1f}" height="{ROW - 8}"/>'
        f'<line x1="{low}" x2="{high}" y1="{at}" y2="{at}" stroke="currentColor" stroke-width="2"/>'
        f'<text x="{WIDTH - RIGHT + 16}" y="{at + 4}">{rate["value"]:.0f} ({ratio:.1f}x)</text></g>'
    )


def _limit(name: str, limit: float, height: int, scale: float) -> str:
    x = round(LEFT + scale * limit, 1)
    return (
        f'<line class="limit" x1="{x}" x2="{x}" y1="{TOP - 8}" y2="{height - BOTTOM + 4}"/>'
        f'<text x="{x}" y="{height - BOTTOM + 20}" text-anchor="middle">limit {name} {limit:.0f}</text>'
    )
