"""Optuna: parameters proposed from the trials that there were, trials given up early, a record.

A study is kept as plain data and given to Optuna anew whenever it is asked, with a sampler seeded
for the trial in question: what is proposed depends on the seed and on the trials told about, not on
the process, on timing or on Optuna's own storage, which holds a copy for people
(`optuna.load_study`, optuna-dashboard).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from raysearch.files import sqlite_address
from raysearch.methods import Choice, Pruning, Range, Space, Studies, Tried, Whole, unpacked
from raysearch.training import derive_seed

RECORD = "optuna.db"
_log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)  # what it says otherwise is in the report


@dataclass(frozen=True)
class OptunaStudies(Studies):
    """Makes studies; see `raysearch.methods.Studies`.

    Args:
        folder: where their record is kept, see `OptunaStudy`; None is nowhere.
        prefix: of the studies' names there.
    """

    folder: Path | None = None
    prefix: str = ""

    def study(self, name: str, space: Space, seed: int, sampler: str, startup: int) -> OptunaStudy:
        """A study without trials."""
        return OptunaStudy(self.prefix + name, space, seed, sampler, startup, self.folder)

    def watch(self, pruning: Pruning, before: bytes) -> OptunaWatch:
        """Watches over a trial with one of Optuna's pruners."""
        return OptunaWatch(pruning, before)


class OptunaStudy:
    """Minimises over a space of parameters; see the module's text and `raysearch.methods.Study`.

    Args:
        name: in the record.
        space: what is proposed.
        seed: of the samplers.
        sampler: `tpe` or `random`.
        startup: trials at the beginning that are drawn at random.
        folder: the study is copied into Optuna's storage there, `sqlite:///FOLDER/optuna.db`.

    Attributes:
        tried: the trials told about, in order.
    """

    def __init__(
        self,
        name: str,
        space: Space,
        seed: int,
        sampler: str,
        startup: int,
        folder: Path | None = None,
    ) -> None:
        self.name, self.seed = name, seed
        self._space = {key: _distribution(one) for key, one in space.items()}
        self._sampler, self._startup = sampler, startup
        self.tried: list[Tried] = []
        self._made: list[FrozenTrial] = []
        self._record: optuna.Study | None = None
        self._storage = ""
        if folder is not None:  # Optuna takes an address for a template of `str.format`
            address = sqlite_address((folder / RECORD).resolve())
            self._storage = address.replace("{", "{{").replace("}", "}}")

    def propose(self, count: int) -> list[dict[str, Any]]:
        """Parameters of the next trials, which may run at the same time."""
        study = optuna.create_study()
        study.add_trials(self._frozen())
        proposed = []
        for number in range(len(self.tried), len(self.tried) + count):
            study.sampler = self._seeded(derive_seed(self.seed, "sampler", number))
            params = study.ask(fixed_distributions=self._space).params
            proposed.append({key: _plain(value) for key, value in params.items()})
        return proposed

    def _frozen(self) -> list[FrozenTrial]:
        """The trials as Optuna has them, each made once."""
        self._made += [_frozen(one, self._space) for one in self.tried[len(self._made) :]]
        return self._made

    def _seeded(self, seed: int) -> optuna.samplers.BaseSampler:
        seed %= 2**32
        if self._sampler == "random":
            return optuna.samplers.RandomSampler(seed)
        # with the liar, trials that run at the same time keep away from each other
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=self._startup, constant_liar=True
        )

    def tell(self, tried: Sequence[Tried]) -> None:
        """Take the outcomes of trials, in the order in which they were proposed."""
        self.tried += tried
        self._copy()

    def _opened(self) -> optuna.Study:
        return optuna.create_study(
            storage=self._storage, study_name=self.name, direction="minimize", load_if_exists=True
        )

    def _copy(self) -> None:
        """Add what the record lacks; it is made anew where it has others than were told about.

        A search goes on where that fails: others may hold the file, or it is damaged.
        """
        if not self._storage:
            return
        try:
            self._record = self._record or self._opened()
            trials = self._frozen()
            kept = self._record.get_trials(deepcopy=False)
            if [_told(one) for one in kept] != [_told(one) for one in trials[: len(kept)]]:
                optuna.delete_study(study_name=self.name, storage=self._storage)
                self._record, kept = self._opened(), []
            self._record.add_trials(trials[len(kept) :])
        except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
            _log.warning("%s is behind: %s", self._storage, " ".join(str(error).split()))

    def state_dict(self) -> list[dict[str, Any]]:
        """All that `load_state_dict` needs: plain data."""
        return [asdict(one) for one in self.tried]

    def load_state_dict(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Continue from `state_dict`."""
        self.tried, self._made = [Tried(**one) for one in state], []
        self._copy()


def _distribution(one: Choice | Range | Whole) -> BaseDistribution:
    """A parameter's space as Optuna has it."""
    if isinstance(one, Choice):
        return CategoricalDistribution(one.options)
    if isinstance(one, Whole):
        return IntDistribution(one.low, one.high)
    return FloatDistribution(one.low, one.high, step=one.step)


def _frozen(tried: Tried, space: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """A trial as Optuna has it."""
    given_up = tried.value is None
    state = TrialState.PRUNED if given_up else TrialState.COMPLETE
    return optuna.trial.create_trial(
        state=TrialState.FAIL if tried.failed else state,
        params=dict(tried.params),
        distributions=dict(space),
        value=tried.last if given_up else tried.value,
        intermediate_values=dict(tried.intermediate),
        system_attrs=dict(tried.rungs),
        user_attrs=dict(tried.notes),
    )


def _told(trial: FrozenTrial) -> tuple[TrialState, dict[str, Any], float | None]:
    """By what a trial in the record is known again."""
    return trial.state, trial.params, trial.value


def _plain(value: Any) -> Any:
    """A parameter as Python's own number or word."""
    return value.item() if isinstance(value, np.generic) else value


def pruner_of(pruning: Pruning) -> optuna.pruners.BasePruner:
    """Optuna's pruner."""
    if pruning.pruner == "median":
        return optuna.pruners.MedianPruner(pruning.startup, pruning.warmup)
    if pruning.pruner == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(max(1, pruning.warmup))
    return optuna.pruners.NopPruner()


class OptunaWatch:
    """Tells whether a trial that is going on should be given up, from the trials before it.

    Args:
        pruning: by which rule.
        before: what `packed` made of the trials that had ended when it was proposed.
    """

    def __init__(self, pruning: Pruning, before: bytes) -> None:
        study = optuna.create_study(pruner=pruner_of(pruning))
        tried = unpacked(before)
        self._armed = len(tried) >= pruning.startup
        study.add_trials([_frozen(one, {}) for one in tried])
        self._study, self._trial = study, study.ask()

    def hopeless(self, epoch: int, value: float) -> bool:
        """Whether to give up after an epoch, counted from 1, with this value."""
        self._trial.report(value, epoch)
        return bool(self._trial.should_prune()) and self._armed

    def rungs(self) -> dict[str, Any]:
        """What the pruner remembers of the trial."""
        frozen: FrozenTrial = self._study.get_trials(deepcopy=False)[-1]
        return dict(frozen.system_attrs)
