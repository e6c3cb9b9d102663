"""Features -> what to do with them: the case of the four, measured; what each way to train would gain and take.

Nothing is trained but the linear probe and, where it may pay, one cheap measurement.
"""

import time
from dataclasses import dataclass
from typing import Any

from classify.advise.advice import begin_ladder, make_advice
from classify.advise.backbones import rank_backbones
from classify.advise.survey import Seen, images_of, look
from classify.advise.trainer import BudgetTrainer
from classify.bundle import PACKAGES
from classify.evidence import learning
from classify.finetune.ground import check_cuts
from classify.inputs import Inputs, open_for_fit, read_inputs
from classify.linear import fit_probe
from classify.spec import FitSpec
from extract.backbones import open_backbone
from extract.progress import Watch
from extract.spec import BackboneSpec
from extract.store.index import versions


@dataclass(frozen=True)
class AdviseSpec:
    """What is asked: a fit by the strategy `auto`, as it would be made, and the networks to compare with its own."""

    fit: FitSpec
    models: tuple[BackboneSpec, ...] = ()


def advise(asked: AdviseSpec, watch: Watch) -> dict[str, Any]:
    """Measure the case, and say what pays; `models` are compared in what is left of the budget.

    -> the advice as a fit by `auto` keeps it, with the features, versions and seconds; `backbones` is None where none
    were named. Raises BackboneError where one of them is not known, before anything is computed, and FitError where
    some were named and the images are not at hand.
    """
    began, spec = time.perf_counter(), asked.fit
    for backbone in asked.models:
        open_backbone(backbone)
    features = open_for_fit(spec)
    inputs = read_inputs(spec, features, watch)
    check_cuts(spec, inputs)
    inputs.tell(watch)
    if asked.models:
        images_of(spec, inputs)  # raises where there is nothing to compare them on
    probe = fit_probe(spec, inputs, watch)
    trainer = BudgetTrainer(spec, inputs, probe, watch)
    seen = look(spec, inputs, trainer, watch)
    ladder = begin_ladder(trainer, seen)
    ladder.climb(trainer, train=False)
    trainer.forget()
    curve, notes = learning(inputs, probe.judged, watch)
    advice = make_advice(spec, inputs.data.train, curve, seen, ladder)
    advice["notes"] = [*advice["notes"], *notes, *inputs.warnings, *probe.judged.warnings]
    advice["backbones"] = _backbones(asked, inputs, seen, trainer.left_s(), watch)
    return {
        "features": features.name,
        "features_key": features.recipe.key,
        "command": list(spec.command),
        **advice,
        "seconds": round(time.perf_counter() - began, 3),
        "versions": versions(PACKAGES),
    }


def _backbones(asked: AdviseSpec, inputs: Inputs, seen: Seen, left_s: float, watch: Watch) -> dict[str, Any] | None:
    """Compare networks, where any are named."""
    if not asked.models or seen.source is None:
        return None
    return rank_backbones(asked.fit, inputs, seen.source, asked.models, watch, seconds=left_s)
