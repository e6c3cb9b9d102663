"""The published figures: a JSON file for each source, with the commands that would reproduce each of its rows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROGRAM = "python pipeline.py"


@dataclass(frozen=True)
class Row:
    """One figure: accuracy (share of 1) of a strategy with a network on the test images of a set.

    `data` is what `extract` is given, `options` are more of its options.
    """

    set: str
    data: str
    network: str
    strategy: str
    published: float
    options: str = ""

    @property
    def name(self) -> str:
        """What its feature set is called."""
        return f"{self.set}-{self.network}".lower().replace(", ", "-")


@dataclass(frozen=True)
class Table:
    """What one source says; `ours` is what is otherwise here, `tolerance` how far apart the same work may come out."""

    name: str
    title: str
    source: str
    protocol: str
    ours: str
    tolerance: float
    commands: tuple[str, ...]
    rows: tuple[Row, ...]

    def commands_of(self, row: Row, weights: str = "IMAGENET1K_V1") -> list[str]:
        """Return the arguments of `pipeline.py` that reproduce a row, one line for each command."""
        known = {name: getattr(row, name) for name in ("data", "name", "network", "strategy", "options")}
        return [" ".join(line.format(**known, weights=weights).split()) for line in self.commands]


def read_tables() -> list[Table]:
    """Read all tables, by name."""
    return [_table(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(HERE.glob("*.json"))]


def _table(name: str, said: dict[str, Any]) -> Table:
    rows = tuple(Row(**row) for row in said["rows"])
    return Table(**{**said, "name": name, "commands": tuple(said["commands"]), "rows": rows})


LEAD = """\
# Published figures

Accuracies that others have published, for the strategies of `fit`, and the commands that would reproduce them. A figure
is held to be reached within the tolerance that its table names: by the same protocol a linear classifier comes out
within a point, across protocols within three, as does fine-tuning. What was run here, on the images and weights at
hand, is in [benchmarks/published.md](../benchmarks/published.md); `python -m benchmarks.published` runs it again. This
page is made of `benchmarks/published/*.json` by `python -m benchmarks.published.page`.

`torchvision:NAME` downloads the set, or finds it under `--root`; other DATA is a folder or a manifest of yours. Columns
are network and strategy. The commands are those of the first figure: for another one put in its DATA, network and
strategy. Sets of 32 or 64 pixels are enlarged: `--resize-size 224`.
"""


def page(tables: Sequence[Table]) -> str:
    """Return docs/figures.md."""
    return "\n".join([LEAD, *map(_section, tables)])


def _section(table: Table) -> str:
    commands = "\n".join(f"$ {PROGRAM} {line}" for line in table.commands_of(table.rows[0]))
    return f"""## {table.title}

Source: {table.source}. {table.protocol} {table.ours} Tolerance in points: {100 * table.tolerance:.0f}.

{_figures(table)}

```text
{commands}
```
"""


def _figures(table: Table) -> str:
    """Return the figures in percent: a row for each set, a column for each network and strategy."""
    columns = list(dict.fromkeys((row.network, row.strategy) for row in table.rows))
    sets = dict.fromkeys((row.set, row.data) for row in table.rows)
    known = {(row.set, row.network, row.strategy): f"{100 * row.published:.1f}" for row in table.rows}
    lines = ["| set | DATA | " + " | ".join(f"{network}, {strategy}" for network, strategy in columns) + " |"]
    lines.append("|" + "---|" * (2 + len(columns)))
    for name, data in sets:
        cells = [known.get((name, *column), "") for column in columns]
        lines.append("| " + " | ".join([name, f"`{data}`", *cells]) + " |")
    return "\n".join(lines)
