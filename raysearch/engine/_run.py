"""All searches of an experiment in one run of Ray Tune."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune

from raysearch.engine._entries import Ended, Entry, Interrupted, Outcome
from raysearch.engine._pool import Pool
from raysearch.engine._scheduler import Workers
from raysearch.engine._searcher import AskAndTell
from raysearch.engine._worker import WorkerTrainable
from raysearch.trials import Watcher

RUN = "tune"  # folder of Tune's own files


def run(
    entries: Sequence[Entry],
    shared: Any,
    *,
    folder: Path,
    max_failures: int,
    watchers: Sequence[Watcher] = (),
    ended: Callable[[Outcome], Sequence[Entry]] = lambda outcome: (),
) -> Ended:
    """Carry out what is left of some searches, and of those that their outcomes make possible.

    Ray has to be running. Nothing that is found depends on how many proposals are worked on at the
    same time, or on interruptions.

    Args:
        entries: the searches.
        shared: what all of them build their work from, i.e. the data set; put into Ray's object
            store once, of which all processes of a node read one copy.
        folder: where states and proposals' files go, on storage that all nodes see.
        max_failures: how often a proposal whose process died is handed out again.
        watchers: told what happens, on the driver.
        ended: is told each outcome, and returns searches that are to be carried out too; where it
            raises a RaysearchError, the outcome's method cannot go on.

    Raises:
        RaysearchError: a person has to mend something first: a full disk, images that cannot be
            read, memory that does not suffice, wrong settings.
        Interrupted: on SIGUSR1; another call goes on.
    """
    pool = Pool(folder, watchers, ended)
    pool.add(entries)
    if not pool.finished:
        _fit(shared, _searcher(pool, entries), folder / RUN, max_failures)
    for watcher in watchers:
        watcher.ended()
    if not pool.finished:
        raise Interrupted
    return pool.result()


def _searcher(pool: Pool, entries: Sequence[Entry]) -> AskAndTell:
    """Begins with as many processes as are of use from the beginning."""
    place = next(iter(entries[0].places.values()))
    alone = sum(entry.asks_once for entry in entries)
    count = place.at_once if alone < len(entries) else min(place.at_once, alone)
    return AskAndTell(pool, place.share, count)


def _fit(shared: Any, searcher: AskAndTell, folder: Path, retries: int) -> None:
    """Let Tune hand out proposals until there are no more."""
    # It misses the result files whose writing is disabled; histories are with the answers.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
    attempt = 1 + len(list(folder.glob("*")))
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(WorkerTrainable, shared=shared), _resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=Workers(searcher, retries),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=_trial_id,
            trial_dirname_creator=_trial_id,
        ),
        run_config=tune.RunConfig(
            name=f"{RUN}-{attempt}",
            storage_path=str(folder.resolve()),
            verbose=0,
            progress_reporter=_Silent(),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    try:
        tuner.fit()
    except Exception:
        if searcher.error is None:
            raise
    if searcher.error is not None:
        raise searcher.error


def _resources(config: Mapping[str, Any]) -> tune.PlacementGroupFactory:
    """What Tune is to reserve for a trial."""
    share = config["trial"]["share"]
    return tune.PlacementGroupFactory([{"CPU": share.cpus, "GPU": share.gpus}])


def _trial_id(trial: Any) -> str:
    """What a trial, and its folder, are called in Tune."""
    return f"{trial.config['trial']['id']}-{trial.trial_id}"


class _Silent(tune.ProgressReporter):
    """Says nothing: Tune's own clears what a notebook's cell has shown so far."""

    def should_report(self, trials: list[Any], done: bool = False) -> bool:
        """Never."""
        return False
