"""Features -> the run of whatever pays: the story of `fit --strategy auto`.

The probe comes first; what is done beyond it keeps to a budget. The way to train that is taken in the end writes the
run, as it would by itself, with the advice in it. Where its last training fails, the best one before it does, in the
end the probe, with a warning.
"""

from dataclasses import replace
from typing import Any

from classify.advise.advice import begin_ladder, make_advice
from classify.advise.ladder import Ladder
from classify.advise.survey import look
from classify.advise.trainer import BudgetTrainer, check_settings
from classify.finetune.ground import check_cuts
from classify.linear import Goal, begin_fit, fit_probe, write_probe
from classify.spec import FitSpec
from classify.tuning import LINEAR, TuneSpec
from extract.errors import Interrupted, OffshelfError
from extract.progress import Watch


def fit_auto(spec: FitSpec, watch: Watch) -> dict[str, Any]:
    """Fit the probe, find out what pays, and write the run of that; return the content of its metrics.json.

    The `seconds` of the advice are those beyond the probe, as the budget is, but for the last training.
    """
    check_settings(spec.tune)
    inputs, goal = begin_fit(spec, watch)
    check_cuts(spec, inputs)
    inputs.tell(watch)
    probe = fit_probe(spec, inputs, watch)
    trainer = BudgetTrainer(spec, inputs, probe, watch)
    seen = look(spec, inputs, trainer, watch)
    ladder = begin_ladder(trainer, seen)
    ladder.climb(trainer)
    seconds = round(trainer.spent_s(), 3)

    def advise(metrics: dict[str, Any]) -> dict[str, Any]:
        advice = make_advice(spec, inputs.data.train, metrics["learning_curve"], seen, ladder)
        return advice | {"seconds": seconds}

    metrics = _written(trainer, ladder, replace(goal, advise=advise))
    trainer.forget()
    return metrics


def _written(trainer: BudgetTrainer, ladder: Ladder, goal: Goal) -> dict[str, Any]:
    """Write the run of the best rung; where its last training fails that of the best before it, with a warning."""
    spec, inputs = trainer.spec, trainer.inputs
    while ladder.best != LINEAR:
        try:
            return trainer.write(ladder.best, goal)
        except Interrupted:
            raise
        except OffshelfError as error:  # hours of work end in a run, if not in the best one
            inputs.warnings.append(ladder.give_up(error))
    plain = replace(spec, strategy=LINEAR, tune=TuneSpec())
    return write_probe(plain, inputs, trainer.probe, goal, trainer.watch)
