"""Methods that need no search: what each stands for, and a run of one from the command line."""

from __future__ import annotations

import json

import pytest
from conftest import SMALL, Ask, CommandLine

from raysearch import methods, ops
from raysearch.engine import Wish, local_capacity
from raysearch.experiment import _forecast
from raysearch.experiment._compose import choices
from raysearch.experiment._count import Plain
from raysearch.experiment._describe import describe
from raysearch.experiment._experiment import compose_run
from raysearch.experiment._forecast import forecast
from raysearch.experiment._plan import make_plan
from raysearch.methods import FIXED, UNCHANGED, Fixed
from raysearch.methods._augmenter import parameter_names
from raysearch.methods._portfolio import random_transformations
from raysearch.policy import (
    PUBLISHED,
    Policy,
    SubPolicies,
    autoaugment,
    entaugment,
    read_policy,
    sra,
    trivial_augment,
)
from raysearch.training import Predefined

CHOSEN = "evaluation.policies=[none,predefined,trivial_augment,cutout]"
GIVEN = Predefined(flip=True, padding=4)
POLICIES: dict[str, Policy] = {
    "none": UNCHANGED,
    "predefined": UNCHANGED,
    "cutout": UNCHANGED,
    "uniform": SubPolicies.pairs(ops.DADA_OPERATIONS),
    "trivial_augment": trivial_augment(),
    "entaugment": entaugment(),
    "sra": sra(),
    **{
        f"affine_colour_{strength}": random_transformations(
            parameter_names("affine+colour", 3), strength
        )
        for strength in (0.1, 0.2, 0.3)
    },
    **{name: autoaugment(name) for name in PUBLISHED},
}


def test_every_one_of_them_is_a_method_with_a_configuration() -> None:
    assert set(FIXED) == set(POLICIES)
    assert set(FIXED) <= set(methods.names()) & set(choices("method"))


@pytest.mark.parametrize("name", FIXED)
def test_its_policy_and_what_goes_with_it(name: str) -> None:
    method = methods.find(name).of({"name": name})
    assert method.known == POLICIES[name]
    expected = {"none": Predefined(), "cutout": Predefined(flip=True, padding=4, cutout=16)}
    assert method.predefined(GIVEN, (32, 48)) == expected.get(name, GIVEN)


def test_cutout_keeps_a_side_that_was_given() -> None:
    given = Predefined(cutout=5)
    assert Fixed("cutout").predefined(given, (32, 32)) == given


def test_a_run_evaluates_it_and_searches_nothing(cli: CommandLine, ask: Ask) -> None:
    done = ask(cli, *SMALL, "method=cutout", "name=cutout", "device=cpu", CHOSEN)
    assert done.returncode == 0, done.stderr
    assert "planned: 8 evaluations" in done.stdout
    assert "− TrivialAugment" in done.stdout
    run = cli.folder / "runs" / "cutout"
    assert read_policy(run / "policy.json") == UNCHANGED
    summary = json.loads((run / "summary.json").read_text())
    assert summary["methods"]["cutout"]["predefined"]["cutout"] == 4  # of 8 pixels
    assert set(summary["differences"]["cutout"]) == {"none", "predefined", "trivial_augment"}
    assert summary["search"]["epoch_equivalents"] == 0
    report = (run / "report.html").read_text()
    assert "There was nothing to search" in report
    assert "Cutout of 4 px" in report


def test_a_dry_run_counts_the_evaluations_alone(cli: CommandLine, ask: Ask) -> None:
    done = ask(cli, *SMALL, "method=autoaugment_svhn", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "search:" not in done.stdout.partition("# trials")[2].partition("# settings")[0]
    assert "evaluation:" in done.stdout


SAID = {
    "randaugment": "search: 2 searches of 20 trials, 2 between two proposals, 2 at once",
    "fast_autoaugment": "search: 2 searches of 5 networks, then 400 policies tried on them",
    "ohl": "search: 2 searches of 6 updates from 8 trials each",
    "pba": "search: 2 searches of 16 members that copy and explore once",
    "aws": "search: 2 searches of 40 updates from 8 trials each",
}


def test_a_dry_run_says_what_a_search_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_forecast, "plain_cost", lambda *_: Plain(seconds=1e-4, parameters=1000))
    capacity = local_capacity(Wish("cpu", 2))
    for name, said in SAID.items():
        plan = make_plan(compose_run([*SMALL, f"method={name}", "device=cpu"]), capacity)
        trials = describe(plan, forecast(plan, capacity)).partition("# trials")[2]
        assert said in trials
        assert "not known" not in trials
