"""The Python API: what the command line does, with objects in and objects out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raysearch.data import Dataset
from raysearch.engine import Wish
from raysearch.experiment._experiment import Experiment, compose_experiment, compose_run
from raysearch.experiment._overrides import Override, overrides_of
from raysearch.experiment._result import Result, read_result
from raysearch.experiment._run import begin
from raysearch.experiment._session import earlier, prepare
from raysearch.experiment._signals import handlers_kept
from raysearch.experiment._storage import copy_results

if TYPE_CHECKING:
    from torch import nn

AGAIN = "the same call"
OWN_IMAGES = "folder"  # the data file whose settings suit a user's own images


def search(
    data: Any = None,
    method: str = "auto",
    *,
    root: str | None = None,
    model: str | Callable[..., nn.Module] | None = None,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    address: str | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Result:
    """Search an augmentation policy, evaluate it, and report.

    The same as `python -m raysearch.run`; nothing is chosen by the test images.

    Args:
        data: a name that `data=` takes (None is the default's, `digits`); or images and labels:
            a `raysearch.data.Dataset`, a torch Dataset of pairs of an image and a label, or a pair
            of arrays, images uint8 [N, C, H, W] and labels [N].
        method: a name that `method=` takes.
        root: `data.root`, the folder of the images.
        model: a name that `model=` takes; or what builds a network, called with `classes`,
            `channels` and `size` (height, width), picklable.
        num_cpus, num_gpus: to use; None is all there are.
        address: of a running Ray cluster; None is `RAY_ADDRESS` in the environment, or none.
        quiet: show no progress.
        **settings: as in `configs/`, nested or by dotted names: `search={"epochs": 5}`,
            `**{"search.epochs": 5}`, `seeds=2`, `name="mine"`. A run of that name that was stopped
            goes on.

    Raises:
        RaysearchError: what is wrong, in one line.

    Example:
        >>> result = raysearch.search(data="folder", root="photos")  # doctest: +SKIP
        >>> result.policy.save("policy.json")                        # doctest: +SKIP
    """
    given = _overrides(data, root, model, {"method": method, **settings})
    experiment = compose_run(given)
    wish = Wish(experiment.settings.device, num_cpus, num_gpus, address)
    return _carry_out(experiment, data, model, wish, quiet)


def compare(
    methods: Sequence[str],
    data: Any = None,
    *,
    root: str | None = None,
    model: str | Callable[..., nn.Module] | None = None,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    address: str | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Result:
    """Search with several methods and judge them on the same seeds.

    The same as `python -m raysearch.compare`.

    Args:
        methods: names that `method=` takes; baselines such as "none" and "trivial_augment" too.
        data, root, model, num_cpus, num_gpus, address, quiet: see `search`.
        **settings: see `search`; those of one method under its name: `dada={"search": {"epochs":
            5}}`. A comparison of the same name that there is takes in methods that are new; what
            those have computed that are neither complete nor asked for any more is removed.

    Raises:
        RaysearchError: what is wrong, in one line.
    """
    given = _overrides(data, root, model, settings)
    experiment = compose_experiment(list(methods), given)
    wish = Wish(experiment.settings.device, num_cpus, num_gpus, address)
    return _carry_out(experiment, data, model, wish, quiet)


def _overrides(
    data: Any, root: str | None, model: Any, settings: Mapping[str, Any]
) -> list[Override]:
    """What was asked for; a user's own objects have no names yet."""
    own_images = data is not None and not isinstance(data, str)
    named = {
        "data": OWN_IMAGES if own_images else data,
        "data.root": root,
        "model": model if isinstance(model, str) else None,
    }
    given = {key: value for key, value in named.items() if value is not None}
    return [*overrides_of(given), *overrides_of(settings)]


def _carry_out(experiment: Experiment, data: Any, model: Any, wish: Wish, quiet: bool) -> Result:
    dataset = network = None
    if data is not None and not isinstance(data, str):
        dataset = data if isinstance(data, Dataset) else Dataset.of(data)
        own = {"name": dataset.name, "size": list(dataset.size)}
        experiment = experiment.changed(data={**experiment.values["data"], **own})
    if model is not None and not isinstance(model, str):
        network = model
        name = getattr(model, "__name__", type(model).__name__)
        experiment = experiment.changed(model={**experiment.values["model"], "name": name})
    folder = earlier(experiment)
    try:
        if folder is not None and folder.is_complete:
            copy_results(folder)
            return read_result(folder.path)
        asked = experiment if folder is None else folder.experiment
        session = prepare(asked, wish, folder=folder, dataset=dataset, network=network)
        with handlers_kept(forever=False):
            return begin(session, again=AGAIN, quietly=quiet)
    finally:
        if folder is not None:
            folder.release()
