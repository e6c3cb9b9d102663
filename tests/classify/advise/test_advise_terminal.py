import pytest
import sample_advice as sample

from classify.advise.phrases import ADVICE, NAMES
from classify.advise.terminal import echo_advice
from classify.advise.words import with_words


def shown(capsys: pytest.CaptureFixture, **changed) -> str:
    echo_advice(with_words(sample.advice(**changed)))
    return capsys.readouterr().out


@pytest.mark.parametrize("strategy", ADVICE)
@pytest.mark.parametrize("similarity", NAMES)
def test_every_case_can_be_printed(capsys, similarity, strategy):
    out = shown(capsys, similarity=similarity, strategy=strategy)
    assert "Your case is" in out
    assert (
        f"The command for this advice: `offshelf fit flowers --strategy {strategy.replace('taps', 'linear')}`." in out
    )


def test_layers_and_rungs_stand_in_tables_and_the_advice_below_them(capsys):
    lines = shown(capsys, strategy="tail", notes=["no classifier at hand"]).splitlines()
    [peak] = [line for line in lines if "<- peak" in line]
    assert peak.split()[:2] == ["layer4:grid:2", "4096"]
    [tail] = [line for line in lines if line.startswith("tail")]
    assert tail.split("  ")[0:1] == ["tail"]
    for said in ("accepted", "+3.1", "[+1.7, +4.5]", "41", "the lower bound of its gain is above 0"):
        assert said in tail
    [full] = [line for line in lines if line.startswith("full")]
    assert "not tried" in full
    assert "about 570" in full
    assert lines[-1] == "Note: no classifier at hand"


def test_what_surely_gains_and_failed_in_the_end_is_not_said_to_be_what_the_run_is_of(capsys):
    failed = sample.tried("full", 0.05, 0.01, accepted=True) | {"why": "failed", "reason": "so; it failed: no room"}
    lines = shown(capsys, ladder=[sample.linear(), failed]).splitlines()
    [full] = [line for line in lines if line.startswith("full")]
    assert full.split()[1] == "failed"
    assert "it failed: no room" in full
    assert (
        "Surely better, but its last training failed: full, 5.0 points higher (4.0 to 6.0 higher) than with linear."
        in lines
    )


def test_what_was_not_measured_is_left_out(capsys):
    out = shown(capsys, depth_profile=None, learning_curve=None, ladder=[])
    assert out.startswith("Your case is")
