"""Published figures: whole, with commands that the program takes, and a page that says just what the files say."""

import shlex

import click
import pytest

import pipeline
from benchmarks.extract.harness import ROOT
from benchmarks.published.tables import Table, page, read_tables
from classify.spec import STRATEGIES

TABLES = read_tables()


def parse(line: str) -> click.Context:
    name, *arguments = shlex.split(line)
    return pipeline.main.commands[name].make_context(name, arguments)


@pytest.mark.parametrize("table", TABLES, ids=[table.name for table in TABLES])
def test_rows_are_shares_of_one_by_commands_that_exist(table: Table):
    for row in table.rows:
        assert 0.1 < row.published < 1
        assert row.strategy in STRATEGIES
        for line in table.commands_of(row):
            with parse(line) as context:
                given = [str(value) for value in context.params.values()]
            assert {row.name, row.strategy} <= set(given) or {row.name, row.data, row.network} <= set(given)


@pytest.mark.parametrize("table", TABLES, ids=[table.name for table in TABLES])
def test_no_figure_is_there_twice(table: Table):
    keys = [(row.set, row.network, row.strategy) for row in table.rows]
    assert len(set(keys)) == len(keys)
    assert 0.01 <= table.tolerance <= 0.03


def test_the_page_is_made_of_the_tables():
    written = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    assert written == page(TABLES), "python -m benchmarks.published.page"
