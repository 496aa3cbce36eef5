"""Tuning: other settings of one candidate, tried on rows held out of the training rows and inside the trial's own time.

Optuna's tree-structured Parzen estimator (Akiba et al. 2019; Bergstra et al. 2011) proposes. A proposal first learns from a quarter
of the rows and goes on only if it is not worse there than the median of those before it (Golovin et al. 2017, section 3.2.1).
"""

from __future__ import annotations

import importlib.util
import time
from typing import Any

import numpy as np

from assay.contest.measure import TrialClock, checked
from assay.data.dataset import Dataset
from assay.data.split import fewer, holdout
from assay.families.base import Candidate, Range, TooSlow
from assay.tasks.base import Task

MOST = 40
WITH_WORK = 8  # proposals where a work budget takes the place of the clock
FIRST_SHARE = 0.25
LEAST_FITS = 6  # with time for fewer fits than this, chance would choose


def tune(candidate: Candidate, task: Task, train: Dataset, *, params: dict[str, Any], seed: int, clock: TrialClock,
         fit_s: float) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """(better params, or None to stay with the default; facts about the search). fit_s: what one fit on these rows took.

    The default is left only if the best proposal beats it on the held-out rows by more than a standard error of the
    paired difference: with few rows, a search finds a lucky setting rather than a good one.
    """
    spare = clock.left() - clock.predict_s - 2.8 * fit_s  # the fit that validates and the fit that counts come afterwards
    if importlib.util.find_spec("optuna") is None or (not clock.unlimited and spare < LEAST_FITS * fit_s):
        return None, {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rest, held = holdout(train, share=0.25, seed=seed + 1, strata=task.strata(train), most=candidate.valid_rows)
    judges, stop = train.take(held), time.monotonic() + spare
    first = fewer(train, rest, share=FIRST_SHARE, seed=seed, strata=task.strata(train))

    def losses(tried: dict[str, Any], rows: np.ndarray) -> np.ndarray:
        model = candidate.build(task, train.schema, **params | tried)
        budget = clock.budget(1.0) if clock.unlimited else clock.seconds_of(min(stop - time.monotonic(), max(3 * fit_s, 0.3)))
        model.fit(train.take(rows), seed=seed, budget=budget)
        raw = checked(task, model.predict(judges.asked()), len(judges))
        return task.losses(train, judges, task.calibrated(raw, task.calibration(task.truth(judges), raw)))

    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=6),
                                pruner=optuna.pruners.MedianPruner(n_startup_trials=4))
    default = losses({}, rest)
    best, chosen, tried = default, None, 0
    for _ in range(WITH_WORK if clock.unlimited else MOST):
        if not clock.unlimited and time.monotonic() + 1.5 * fit_s > stop:
            break
        trial = study.ask()
        proposed = {name: _suggest(trial, name, space) for name, space in candidate.space.items()}
        tried += 1
        try:
            trial.report(float(losses(proposed, first).mean()), step=0)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                continue
            found = losses(proposed, rest)
        except TooSlow:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        study.tell(trial, float(found.mean()))
        clock.say(f"tuning: {tried} tried, held-out loss {min(found.mean(), best.mean()):.4f} (default {default.mean():.4f})")
        if found.mean() < best.mean():
            best, chosen = found, proposed
    gain = default - best
    clear = chosen is not None and gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain))
    facts = {"tuning": {"tried": tried, "default_loss": float(default.mean()), "best_loss": float(best.mean()), "chosen": chosen if clear else None}}
    return (params | chosen if clear and chosen else None), facts


def _suggest(trial: Any, name: str, space: Range | tuple[Any, ...]) -> Any:
    if isinstance(space, tuple):
        return trial.suggest_categorical(name, list(space))
    if space.whole:
        return trial.suggest_int(name, int(space.low), int(space.high), log=space.log)
    return trial.suggest_float(name, space.low, space.high, log=space.log)
