"""Write docs/figures.md: python -m benchmarks.published.page."""

from benchmarks.extract.harness import ROOT
from benchmarks.published.tables import page, read_tables

if __name__ == "__main__":
    (ROOT / "docs" / "figures.md").write_text(page(read_tables()), encoding="utf-8")
