"""Ray: the trials that Tune schedules, their checkpoints, and what they hold of the cluster."""

from __future__ import annotations

from raysearch.tune._checkpoints import (
    Progress,
)
from raysearch.tune._cluster import Capacity, Wish, cluster, local_capacity, trial_share
from raysearch.tune._jobs import EvaluationJob, MemberJob, SearchJob, Setting, WorkerJob
from raysearch.tune._members import MembersJob
from raysearch.tune._observe import TrialError
from raysearch.tune._pbt import run_populations
from raysearch.tune._proposals import RoundsJob
from raysearch.tune._rounds import run_rounds
from raysearch.tune._stage import Interrupted, Outcome, forget_trials, run_stage, unfinished
from raysearch.tune._trainable import Job, Share, Work

__all__ = [
    "Capacity",
    "EvaluationJob",
    "Interrupted",
    "Job",
    "MemberJob",
    "MembersJob",
    "Outcome",
    "Progress",
    "RoundsJob",
    "SearchJob",
    "Setting",
    "Share",
    "TrialError",
    "Wish",
    "Work",
    "WorkerJob",
    "cluster",
    "forget_trials",
    "local_capacity",
    "run_populations",
    "run_rounds",
    "run_stage",
    "trial_share",
    "unfinished",
]
