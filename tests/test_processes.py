"""Short trials are spread over all processes, and no process is started in vain."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray

from benchmarks.scale import Build
from raysearch.tracking import TrialInfo
from raysearch.tune import Job, Share, Wish, cluster, run_stage


@dataclass
class Workers:
    """Notes which process each trial ran in."""

    of: dict[str, int] = field(default_factory=dict)

    def trial_progress(self, trial: TrialInfo, epoch: int, metrics: Any) -> None:
        self.of[trial.id] = int(metrics["worker"])

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **more: None


@pytest.mark.slow
def test_short_trials_use_all_processes(tmp_path: Path) -> None:
    trials = [TrialInfo(f"t-{i}", "evaluation", f"t {i}", "none", i) for i in range(60)]
    watch = Workers()
    with cluster(Wish("cpu", cpus=2)):
        job = Job(Build(epochs=1, seconds=0.2, values=1), Share(1.0, 0.0, "cpu"))
        run_stage(
            "evaluation",
            trials,
            job,
            folder=tmp_path,
            epochs=1,
            max_failures=0,
            at_once=2,
            watchers=[watch],
        )
        assert ray.is_initialized()
    assert len(watch.of) == 60
    assert len(set(watch.of.values())) == 2
