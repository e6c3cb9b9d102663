import dataclasses

import click
import pytest
from click.testing import CliRunner

from classify.options import FitCommand, split_tuning, tuning_options
from classify.tuning import TuneSpec


@click.command(cls=FitCommand)
@click.option("--plain", default="x", help="Something else.")
@tuning_options
@click.pass_context
def command(ctx, plain, **options):
    others, tune = split_tuning({"plain": plain, **options})
    assert others == {"plain": "x"}
    ctx.obj.append(tune)


def parsed(*arguments: str) -> TuneSpec:
    kept: list[TuneSpec] = []
    result = CliRunner().invoke(command, arguments, obj=kept, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return kept[0]


def test_without_options_everything_is_left_to_the_data():
    assert parsed() == TuneSpec()


SAID = {
    "cut": ("--cut", "layer3", "layer3"),
    "freeze_until": ("--freeze-until", "layer2", "layer2"),
    "bn": ("--bn", "affine", "affine"),
    "recipe": ("--recipe", "bit", "bit"),
    "optimizer": ("--optimizer", "adamw", "adamw"),
    "rates": ("--rate", "0.01", (0.01,)),
    "weight_decay": ("--weight-decay", "0", 0.0),
    "steps": ("--steps", "7", 7),
    "batch_size": ("--batch-size", "32", 32),
    "augment": ("--augment", "flip", "flip"),
    "mixup": ("--mixup", "0.1", 0.1),
    "label_smoothing": ("--label-smoothing", "0.1", 0.1),
    "ema": ("--no-ema", "", False),
    "layer_decay": ("--layer-decay", "0.75", 0.75),
    "gradual": ("--gradual", "", True),
    "wise": ("--wise", "auto", "auto"),
    "folds": ("--folds-trained", "0", 0),
    "seeds": ("--seeds", "2", 2),
    "views": ("--views", "8", 8),
    "budget_s": ("--budget", "10m", 600.0),
    "checkpoint_s": ("--checkpoint-every", "2h", 7200.0),
    "precision": ("--precision", "bf16", "bf16"),
    "compile": ("--compile", "inductor", "inductor"),
    "processes": ("--processes", "2", 2),
}


@pytest.mark.parametrize("field", [each.name for each in dataclasses.fields(TuneSpec) if each.name != "tensorboard"])
def test_every_field_can_be_said(field):
    option, value, expected = SAID[field]
    found = parsed(*filter(None, (option, value)))
    assert found == dataclasses.replace(TuneSpec(), **{field: expected})


def test_rates_add_up_and_times_are_in_seconds(tmp_path):
    assert parsed("--rate", "0.1", "--rate", "0.2").rates == (0.1, 0.2)
    assert [parsed("--budget", said).budget_s for said in ("90", "1.5s", "2m")] == [90.0, 1.5, 120.0]
    assert parsed("--wise", "0.5").wise == 0.5
    assert parsed("--tensorboard", str(tmp_path)).tensorboard == tmp_path


@pytest.mark.parametrize("said", [("--budget", "soon"), ("--budget", "0m"), ("--wise", "2"), ("--rate", "0")])
def test_what_means_nothing_is_refused(said):
    assert CliRunner().invoke(command, said, obj=[]).exit_code == 2


def test_the_help_lists_them_apart():
    said = CliRunner().invoke(command, ["--help"]).output
    plain, _, tuning = said.partition("Fine-tuning")
    assert "--plain" in plain
    assert "--cut" not in plain
    assert "--cut" in tuning
