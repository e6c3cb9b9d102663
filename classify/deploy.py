"""The chosen head, fitted on the whole training part, as what a run deploys."""

from classify.bundle import Bundle
from classify.inputs import Inputs, blocks_of
from classify.judged import Judged
from classify.openset import draw_reference, fit_open_set
from classify.scoring import join
from classify.solvers import Fitted
from classify.spec import FitSpec


def deploy(spec: FitSpec, inputs: Inputs, judged: Judged) -> tuple[Bundle, Fitted]:
    """Fit the chosen head on the whole training part: -> the bundle, and what its scores are held against."""
    best, train = judged.found.best, inputs.data.train
    fitted = inputs.solver.fit(inputs.task, best.candidate, best.params)
    if not fitted.converged:
        judged.warnings.append("the last fit, on all training images, did not converge")
    drawn = draw_reference(len(train), best.candidate.dims, spec.seed)
    X = join(list(blocks_of(inputs.features, best.candidate.layers, train.rows[drawn]).values()))
    groups = None if train.groups is None else train.groups[drawn]
    bundle = Bundle(
        recipe=inputs.features.recipe,
        layers=best.candidate.layers,
        transform=best.candidate.transform,
        head=best.head,
        kind=fitted.kind,
        params=best.params,
        classes=inputs.data.classes,
        temperature=judged.temperature,
        arrays=fitted.arrays,
        conformal=judged.conformal,
        abstain=judged.abstain,
        open_set=fit_open_set(X, train.y[drawn], groups, n_seen=len(train), seed=spec.seed, device=inputs.task.device),
        model=fitted.estimator,
    )
    return bundle, fitted
