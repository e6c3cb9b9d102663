"""Features -> the run of whatever pays: the story of `fit --strategy auto`.

The probe comes first; what is done beyond it keeps to a budget. The way to train that is taken in the end writes the
run, as it would by itself, with the advice in it.
"""

from dataclasses import replace
from typing import Any

from classify.advise.advice import begin_ladder, make_advice
from classify.advise.survey import look
from classify.advise.trainer import BudgetTrainer
from classify.finetune.ground import check_cuts
from classify.linear import begin_fit, fit_probe, write_probe
from classify.spec import FitSpec
from classify.tuning import LINEAR, TuneSpec
from extract.progress import Watch


def fit_auto(spec: FitSpec, watch: Watch) -> dict[str, Any]:
    """Fit the probe, find out what pays, and write the run of that; return the content of its metrics.json.

    The `seconds` of the advice are those beyond the probe, as the budget is, but for the last training.
    """
    inputs, goal = begin_fit(spec, watch)
    check_cuts(spec, inputs)
    inputs.tell(watch)
    probe = fit_probe(spec, inputs, watch)
    trainer = BudgetTrainer(spec, inputs, probe, watch)
    seen = look(spec, inputs, trainer, watch)
    ladder = begin_ladder(spec, inputs.task, probe, seen)
    ladder.climb(trainer)
    seconds = round(trainer.spent_s(), 3)

    def advise(metrics: dict[str, Any]) -> dict[str, Any]:
        advice = make_advice(spec, inputs.data.train, metrics["learning_curve"], seen, ladder)
        return advice | {"seconds": seconds}

    goal = replace(goal, advise=advise)
    if ladder.best == LINEAR:
        metrics = write_probe(replace(spec, strategy=LINEAR, tune=TuneSpec()), inputs, probe, goal, watch)
    else:
        metrics = trainer.write(ladder.best, goal)
    trainer.forget()
    return metrics
