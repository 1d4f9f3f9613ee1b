"""`method=randaugment` from the command line, where nothing is searched."""

from __future__ import annotations

import pytest
from conftest import SMALL, Ask, CommandLine

ARGUMENTS = [
    *SMALL,
    "method=randaugment",
    "search.epochs=40",
    "method.trials=6",
    "method.parallel=2",
    "method.startup_trials=2",
    "device=cpu",
]


@pytest.mark.slow
def test_given_n_and_m_nothing_is_searched(cli: CommandLine, ask: Ask) -> None:
    done = ask(cli, *ARGUMENTS, "method.n=2", "method.m=9", "name=given")
    assert done.returncode == 0, done.stderr
    assert "planned: 4 evaluations\n" in done.stdout
    assert "magnitude 0.3" in done.stdout
    assert not (cli.folder / "runs" / "given" / "optuna.db").exists()
