"""From the command line of `raysearch.run` to an exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from raysearch.cli._address import check_address
from raysearch.cli._arguments import Arguments, parse
from raysearch.errors import RaysearchError
from raysearch.experiment._compose import compose
from raysearch.experiment._experiment import compose_run
from raysearch.experiment._folder import Folder, check_free, resume
from raysearch.experiment._signals import handlers_kept, stop_on_signal, was_terminated
from raysearch.experiment._storage import check_storage, copy_results

if TYPE_CHECKING:
    from raysearch.engine import Wish

OK, UNEXPECTED, MISTAKE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
FULL = (errno.ENOSPC, errno.EDQUOT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line of `raysearch.run`; see `guarded`."""
    return guarded(arguments, lambda: _run(parse(arguments)))


def guarded(arguments: Sequence[str] | None, work: Callable[[], None]) -> int:
    """Do what a command line says, and turn what goes wrong into a line and an exit code.

    Returns:
        0 when all is well, 2 for something that the user can mend (said in one line), 1 for
        something unexpected, 130 after Ctrl-C, 143 after SIGTERM.
    """
    with handlers_kept(forever=arguments is None):
        return _guarded(arguments, work)


def _guarded(arguments: Sequence[str] | None, work: Callable[[], None]) -> int:
    debug = "--debug" in (sys.argv if arguments is None else arguments)
    try:
        with stop_on_signal():
            work()
    except SystemExit as done:  # --help, --version
        return done.code if isinstance(done.code, int) else OK
    except BaseException as error:
        if debug:
            traceback.print_exc()
        code, line = _explain(error)
        print(line, file=sys.stderr)
        return code
    return OK


def _explain(error: BaseException) -> tuple[int, str]:
    """Exit code and line for an error."""
    line = " ".join(str(error).split())
    if isinstance(error, KeyboardInterrupt):
        return (TERMINATED if was_terminated() else INTERRUPTED), line or "interrupted"
    if isinstance(error, RaysearchError):
        return (MISTAKE if getattr(error, "expected", True) else UNEXPECTED), f"error: {line}"
    if isinstance(error, OSError) and error.errno in FULL:
        return MISTAKE, f"error: no space left: {error.filename or line}"
    return UNEXPECTED, f"unexpected error: {type(error).__name__}: {line} (--debug shows more)"


def _run(arguments: Arguments) -> None:
    if arguments.resume is not None:
        _resume(arguments)
        return
    experiment = compose_run(arguments.overrides)
    if not arguments.dry_run:
        check_free(experiment)
        check_storage(experiment)
    check_reachable(arguments)
    from raysearch.experiment._describe import describe
    from raysearch.experiment._session import begin, prepare

    wish = wished(arguments, experiment.settings.device)
    plan, forecast = prepare(experiment, wish)
    if arguments.dry_run:
        print(describe(plan, forecast))
        return
    begin(plan, forecast, wish, quietly=arguments.quiet)


def _resume(arguments: Arguments) -> None:
    assert arguments.resume is not None
    folder = resume(arguments.resume, _runs_dir(arguments))
    try:
        _go_on(folder, arguments)
    finally:
        folder.release()


def _go_on(folder: Folder, arguments: Arguments) -> None:
    check_storage(folder.experiment, resumed=True)
    if folder.state.get("status") == "complete":
        stored = copy_results(folder.experiment, folder.path)  # which may not have worked
        place = stored or folder.path
        print(f"run {folder.path} is complete: see {place}/report.html")
        return
    from raysearch.experiment._session import begin, prepare

    check_reachable(arguments)
    experiment = folder.experiment
    wish = wished(arguments, folder.state.get("device", experiment.settings.device))
    plan, forecast = prepare(experiment, wish, kept=folder.path)
    begin(plan, forecast, wish, folder=folder, quietly=arguments.quiet)


def wished(arguments: Arguments, device: str) -> Wish:
    """What of the machine or cluster to use."""
    from raysearch.engine import Wish

    return Wish(device, arguments.num_cpus, arguments.num_gpus, _address(arguments))


def _address(arguments: Arguments) -> str | None:
    """The cluster to use: the one asked for, or the one that this process is a job of."""
    return arguments.address or os.environ.get("RAY_ADDRESS") or None


def check_reachable(arguments: Arguments) -> None:
    """The cluster answers, where one is asked for; raises RaysearchError."""
    address = _address(arguments)
    if address is not None:
        check_address(address)


def _runs_dir(arguments: Arguments) -> str:
    """Where `--resume` looks for a run's name."""
    others = [o for o in arguments.overrides if not o.startswith("runs_dir=")]
    if others or arguments.dry_run:
        raise RaysearchError(
            f"--resume takes its settings from the run's folder: leave out "
            f"{' '.join(others) or '--dry-run'}"
        )
    return compose(arguments.overrides).settings.runs_dir
