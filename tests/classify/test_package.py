import inspect
import subprocess
import sys

import pytest

import classify

WAYS = {
    "package first": "from classify import fit; import classify.fit as module; assert module is fit",
    "module first": "import classify.fit; from classify import fit; assert fit is classify.fit",
    "function first": "from classify.fit import fit as plain; from classify import fit; assert plain is fit.fit",
    "attribute": "import classify; fit = classify.fit",
}


@pytest.mark.parametrize("way", WAYS)
def test_fit_can_be_called_whichever_way_it_was_imported_first(way):
    code = f"{WAYS[way]}; import sys; sys.exit(not callable(fit) or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_module_takes_and_gives_what_its_function_does(monkeypatch):
    from classify import FitSpec, fit

    seen = []
    monkeypatch.setattr(fit, "fit", lambda spec, *, progress: seen.append((spec, progress)) or {"done": True})
    spec = FitSpec("photos")
    assert fit(spec) == {"done": True}
    assert seen == [(spec, None)]


def test_it_shows_the_signature_of_the_function():
    from classify.fit import fit

    assert str(inspect.signature(classify.fit)) == str(inspect.signature(fit))


def test_there_is_nothing_else():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        classify.nothing  # noqa: B018
