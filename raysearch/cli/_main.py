"""From the command line of `raysearch.run` to an exit code."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from raysearch.cli._arguments import Arguments, parse
from raysearch.errors import RaysearchError, is_disk_full
from raysearch.experiment._compose import compose
from raysearch.experiment._experiment import Experiment, compose_run
from raysearch.experiment._folder import Folder, resume
from raysearch.experiment._signals import handlers_kept, stop_on_signal, was_terminated
from raysearch.experiment._storage import copy_results

if TYPE_CHECKING:
    from raysearch.results import Measured

OK, UNEXPECTED, MISTAKE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line of `raysearch.run`; see `guarded`."""
    return guarded(arguments, lambda: _run(parse(arguments)))


def guarded(arguments: Sequence[str] | None, work: Callable[[], None]) -> int:
    """Do what a command line says, and turn what goes wrong into a line and an exit code.

    Returns:
        0 when all is well, 2 for something that the user can mend (said in one line), 1 for
        something unexpected, 130 after Ctrl-C, 143 after SIGTERM.
    """
    debug = "--debug" in (sys.argv if arguments is None else arguments)
    try:
        with handlers_kept(forever=arguments is None), stop_on_signal():
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
    if is_disk_full(error):
        return MISTAKE, f"error: no space left: {getattr(error, 'filename', None) or line}"
    return UNEXPECTED, f"unexpected error: {type(error).__name__}: {line} (--debug shows more)"


def _run(arguments: Arguments) -> None:
    if arguments.resume is not None:
        _resume(arguments.resume, arguments)
        return
    start(arguments, compose_run(arguments.overrides))


def _resume(run: str, arguments: Arguments) -> None:
    given = arguments.overrides
    where = [one for one in given if one.startswith("runs_dir=")]
    folder = resume(run, compose(where).settings.runs_dir)
    try:
        others = [one for one in given if one not in where]
        if others or arguments.dry_run:
            raise RaysearchError(
                f"--resume takes its settings from the run's folder: leave out "
                f"{' '.join(others) or '--dry-run'}"
            )
        folder.go_where_it_began()
        if folder.is_complete:
            place = copy_results(folder) or folder.path  # which may not have worked
            print(f"run {folder.path} is complete: see {place}/report.html")
        else:
            start(arguments, folder.experiment, folder)
    finally:
        folder.release()


def start(
    arguments: Arguments,
    experiment: Experiment,
    folder: Folder | None = None,
    others: Sequence[Measured] = (),
) -> None:
    """Carry an experiment out, or say what it would do.

    Args:
        arguments: what was typed.
        experiment, folder, others: see `raysearch.experiment._session.prepare`.

    Raises:
        KeyboardInterrupt, RaysearchError: see `raysearch.experiment._run.begin`; methods that are
            left out are an error too.
    """
    from raysearch.engine import Wish
    from raysearch.experiment._describe import describe
    from raysearch.experiment._run import LeftOutError, begin
    from raysearch.experiment._session import prepare

    device, address = experiment.settings.device, arguments.address
    wish = Wish(device, arguments.num_cpus, arguments.num_gpus, address)
    dry = arguments.dry_run
    session = prepare(experiment, wish, folder=folder, others=others, only_look=dry)
    if dry:
        done = [] if folder is None else folder.complete
        print(describe(session.plan, session.forecast, done))
        return
    result = begin(session, quietly=arguments.quiet)
    if result.failed:
        raise LeftOutError(result.failed, result.folder)
