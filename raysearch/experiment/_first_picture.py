"""What networks will see, drawn before anything is computed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from raysearch.errors import RaysearchError
from raysearch.experiment._measured import samples
from raysearch.files import write_whole
from raysearch.results import augmented_png, picture_file

if TYPE_CHECKING:
    from raysearch.experiment._plan import Plan


def draw_first(plan: Plan, folder: Path) -> list[Path]:
    """Draw images as they were read, and augmented as by each method that knows nothing yet.

    A method that chooses no operations has no picture before it has found something. The pictures
    lie where those of the finished policies will. One that is there stays.

    Args:
        plan: the methods and the images.
        folder: the experiment's.

    Raises:
        RaysearchError: a picture cannot be written.
    """
    drawn: list[Path] = []
    several = len(plan.parts) > 1
    images = samples(plan.dataset.train, plan.task)
    for name, part in plan.parts.items():
        policy = part.method.known
        if policy is None and part.seeds:
            policy = part.method.uniform
        path = folder / picture_file("augmented", name, several)
        if policy is None or path.exists():
            continue
        if several and not (policy.marginals() or policy.parameters()):
            continue  # it leaves images as they are
        try:
            path.parent.mkdir(exist_ok=True)
            write_whole(path, augmented_png(policy, images))
        except OSError as error:
            raise RaysearchError(f"{path} cannot be written: {error.strerror}") from error
        drawn.append(path)
    return drawn
