"""Shared checkpoints of another run, with which a search may begin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from raysearch.errors import RaysearchError
from raysearch.states import load

if TYPE_CHECKING:
    from raysearch.experiment._plan import Part, Plan
    from raysearch.protocol import Values

SHARED = "shared"  # folder of an experiment


def shared_file(folder: Path, method: str, seed: int) -> Path:
    """Where an experiment keeps what a search began with."""
    return folder / SHARED / method / f"seed-{seed}.pt"


def given_checkpoints(plan: Plan, part: Part, kept: Path | None) -> Mapping[int, Values]:
    """What `method.shared_checkpoint` names for every search seed, if it does.

    Args:
        plan: the experiment's.
        part: the method's.
        kept: folder of an experiment in which the method goes on, which has a copy.

    Raises:
        RaysearchError: it cannot be read, or does not fit.
    """
    place = part.configuration.values["method"].get("shared_checkpoint")
    found: dict[int, Values] = {}
    for seed in part.seeds if place else ():
        path = _find(str(place), part.name, seed, kept)
        try:
            checkpoint = load(path)
        except Exception as error:  # whatever a file may hold
            raise RaysearchError(
                f"method.shared_checkpoint={path}: not a checkpoint ({type(error).__name__})"
            ) from None
        setup = plan.setup(part, "cpu")(dataset=plan.dataset, seed=seed)
        try:
            part.method.fits(checkpoint, setup, part.context)
        except RaysearchError as error:
            raise RaysearchError(f"method.shared_checkpoint={path}: {error}") from None
        found[seed] = checkpoint
    return found


def _find(given: str, method: str, seed: int, kept: Path | None) -> Path:
    name, place = f"seed-{seed}.pt", Path(given)
    kept_here = [] if kept is None else [shared_file(kept, method, seed)]
    others = sorted((place / SHARED).glob(f"*/{name}"))
    for path in (*kept_here, place, place / name, shared_file(place, method, seed), *others):
        if path.is_file():
            return path
    raise RaysearchError(
        f"method.shared_checkpoint={given}: there is no {name} in it, nor in its {SHARED}/"
    )
