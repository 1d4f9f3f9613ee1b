"""The Python API: what the command line does, with objects in and objects out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raysearch.engine import Wish
from raysearch.errors import RaysearchError
from raysearch.experiment._experiment import Experiment, compose_experiment, compose_run
from raysearch.experiment._folder import Folder, resume
from raysearch.experiment._overrides import overrides_of
from raysearch.experiment._result import Result
from raysearch.experiment._session import begin, check_new, earlier, prepare
from raysearch.experiment._signals import handlers_kept

if TYPE_CHECKING:
    from torch import nn

    from raysearch.data import Dataset

AGAIN = "the same call"
OWN_IMAGES = "folder"  # the data file whose settings suit a user's own images


@dataclass(frozen=True)
class _Given:
    """A user's own objects among what was asked for."""

    dataset: Dataset | None
    network: Callable[..., nn.Module] | None


def search(
    data: Any = None,
    method: str = "dada",
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
        address: of a running Ray cluster.
        quiet: show no progress.
        **settings: as in `configs/`, nested or by dotted names: `search={"epochs": 5}`,
            `**{"search.epochs": 5}`, `seeds=2`, `name="mine"`. A run of that name that was stopped
            goes on.

    Raises:
        RaysearchError: what is wrong, in one line.

    Example:
        >>> result = raysearch.search(data="folder", root="photos", method="dada")  # doctest: +SKIP
        >>> result.policy.save("policy.json")                                       # doctest: +SKIP
    """
    given, lines = _read(data, root, model, settings)
    experiment = _with_objects(compose_run([f"method={method}", *lines]), given)
    wish = Wish(experiment.settings.device, num_cpus, num_gpus, address)
    return _carry_out(experiment, given, wish, quiet)


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
            5}}`. A comparison of the same name that there is takes in methods that are new.

    Raises:
        RaysearchError: what is wrong, in one line.
    """
    given, lines = _read(data, root, model, settings)
    experiment = _with_objects(compose_experiment(list(methods), lines), given)
    wish = Wish(experiment.settings.device, num_cpus, num_gpus, address)
    return _carry_out(experiment, given, wish, quiet)


def _carry_out(experiment: Experiment, given: _Given, wish: Wish, quiet: bool) -> Result:
    folder = _begun(experiment)
    if folder is not None and _is_complete(folder, experiment):
        folder.release()
        return read_result(folder)
    try:
        plan, forecast = prepare(
            experiment if folder is None else folder.experiment,
            wish,
            kept=None if folder is None else folder.path,
            dataset=given.dataset,
            network=given.network,
        )
    except BaseException:
        if folder is not None:
            folder.release()
        raise
    with handlers_kept(forever=False):
        folder, done = begin(plan, forecast, wish, folder=folder, again=AGAIN, quietly=quiet)
    return Result(folder.path, done.measured, done.summary, done.failed)


def read_result(folder: Folder) -> Result:
    """The result of an experiment that has been carried out.

    Raises:
        RaysearchError: it cannot be read.
    """
    from raysearch import results

    measured = results.read(folder.path)
    return Result(folder.path, measured, results.summarise(measured))


def _begun(experiment: Experiment) -> Folder | None:
    """The folder of an experiment of that name that was begun before."""
    if experiment.compared:
        return earlier(experiment)
    path = experiment.path
    if path is None or not path.exists():
        check_new(experiment)
        return None
    from raysearch.experiment._experiment import check_same

    folder = resume(str(path), experiment.settings.runs_dir)
    try:
        check_same(path, folder.experiment, experiment)
    except RaysearchError:
        folder.release()
        raise
    return folder


def _is_complete(folder: Folder, experiment: Experiment) -> bool:
    return set(experiment.methods) <= set(folder.complete)


def _read(
    data: Any, root: str | None, model: Any, settings: dict[str, Any]
) -> tuple[_Given, list[str]]:
    """Objects, and the overrides for all that is none."""
    lines = list(overrides_of(settings))
    dataset, network = None, None
    if isinstance(data, str):
        lines.insert(0, f"data={data}")
    elif data is not None:
        from raysearch.data import Dataset

        dataset = data if isinstance(data, Dataset) else Dataset.of(data)
        lines.insert(0, f"data={OWN_IMAGES}")
    if root is not None:
        lines += overrides_of({"data.root": root})
    if isinstance(model, str):
        lines.append(f"model={model}")
    elif model is not None:
        network = model
    return _Given(dataset, network), lines


def _with_objects(experiment: Experiment, given: _Given) -> Experiment:
    """The settings with the names of a user's own objects, by which they are known again."""
    changed: dict[str, Any] = {}
    if given.dataset is not None:
        size = list(given.dataset.size)
        changed["data"] = {**experiment.values["data"], "name": given.dataset.name, "size": size}
    if given.network is not None:
        name = getattr(given.network, "__name__", type(given.network).__name__)
        changed["model"] = {**experiment.values["model"], "name": name}
    return experiment.changed(**changed) if changed else experiment
