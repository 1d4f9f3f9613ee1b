"""Every benchmark runs, at a size that says nothing, and closes with one JSON line."""

from __future__ import annotations

import importlib
import json
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CommandLine

from benchmarks import _common, trial_overhead
from benchmarks._common import plot_path
from benchmarks._common import run as measure
from benchmarks.ablation import removals
from benchmarks.late import lengths, windows
from benchmarks.planted import found_after
from benchmarks.proxies import correlations, policies_of
from raysearch import ops
from raysearch.errors import RaysearchError
from raysearch.policy import Candidates, Pairs, SubPolicies, trivial_augment

SMALL = {
    "trial_overhead": ["updates=2", "parallel=2", "workers=1", "epochs=1", "limit=100"],
    "scale": ["trials=2", "at_once=1", "epochs=2", "seconds=0.01"],
    "ops": ["rounds=1", "batch=8", "seconds=0.01"],
    "step_cost": ["model=small_cnn", "batch=8", "rounds=1", "size=8"],
    "planted": ["operations=Invert,Rotate", "seeds=2", "epochs=1", "size=8", "workers=1"],
    "second_order": ["model=small_cnn", "batch=8", "rounds=1", "size=8"],
    "known_answers": ["kinds=translation", "seeds=1", "epochs=1", "size=8", "workers=1"],
    "gain": [
        *("method=dada,bilevel", "seeds=2", "search_seeds=1"),
        *("search_epochs=1", "epochs=1", "workers=1"),
    ],
    "proxies": [
        *("data=digits", "limit=100", "policies=4", "seeds=2", "workers=1"),
        *("epochs=1", "finetune_epochs=1", "plot={folder}/proxies.png"),
    ],
    "late": ["fractions=0,0.5,1", "seeds=2", "epochs=2", "workers=1", "plot={folder}/late.png"],
    "ablation": ["policy={folder}/policy.json", "seeds=2", "epochs=1", "remove=2", "workers=1"],
}
KEYS = {
    "trial_overhead": {"overhead_seconds", "idle_share", "busy_share", "processes"},
    "scale": {"at_once", "trial_seconds", "tracking_percent", "rows"},
    "ops": {"ratio_32", "ratio_224"},
    "step_cost": {"method", "ratio", "arithmetic_ratio"},
    "planted": {"method", "found", "cases", "seconds", "not_identifiable"},
    "second_order": {"pytorch", "ours", "difference"},
    "known_answers": {"method", "cases", "grows", "kinds"},
    "gain": {"method", "errors", "difference", "search_epochs"},
    "proxies": {"policies", "pearson", "spearman", "accuracies", "paper"},
    "late": {"policy", "errors", "difference"},
    "ablation": {"policy", "removed", "errors", "difference"},
}


Run = Callable[..., dict[str, Any]]


class Threads(ThreadPoolExecutor):
    """Workers of this process, to which all goes pickled, as to processes."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See `Executor.submit`."""
        return super().submit(_call, pickle.dumps((fn, args, kwargs)))


def _call(pickled: bytes) -> Any:
    fn, args, kwargs = pickle.loads(pickled)
    return pickle.loads(pickle.dumps(fn(*args, **kwargs)))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a benchmark in this process, its workers as threads; what its last line says."""

    def ran(name: str, *arguments: str) -> dict[str, Any]:
        program = importlib.import_module(f"benchmarks.{name}")
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        monkeypatch.setattr(_common, "ProcessPoolExecutor", Threads)
        measure(program.main)
        result: dict[str, Any] = json.loads(capfd.readouterr().out.splitlines()[-1])
        return result

    return ran


SLOW = "trial_overhead"  # `scale` goes the same way through Ray


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == SLOW else n for n in SMALL]
)
def test_it_runs_and_closes_with_json(name: str, tmp_path: Path, run: Run) -> None:
    Pairs.uniform(["Rotate", "Invert"]).save(tmp_path / "policy.json")
    arguments = [argument.format(folder=tmp_path) for argument in SMALL[name]]
    result = run(name, *arguments)
    for plot in (argument for argument in arguments if argument.startswith("plot=")):
        assert Path(plot.removeprefix("plot=")).read_bytes().startswith(b"\x89PNG")
    assert result["benchmark"] == name
    assert set(result) >= KEYS[name]


def test_one_runs_from_the_command_line(tmp_path: Path) -> None:
    Pairs.uniform(["Rotate", "Invert"]).save(tmp_path / "policy.json")
    arguments = [argument.format(folder=tmp_path) for argument in SMALL["ablation"]]
    cli = CommandLine(tmp_path, "benchmarks.ablation")
    process = cli.run(*arguments)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout.splitlines()[-1])["benchmark"] == "ablation"


def test_a_schedules_last_phase_is_ranked(run: Run) -> None:
    assert run("planted", "method=ddas", *SMALL["planted"])["method"] == "ddas"


@pytest.mark.parametrize("name", ["planted", "gain"])
def test_searches_in_rounds_are_carried_out_in_process(name: str, run: Run) -> None:
    own = ["method=pba", "method.population=2", "method.interval=1", "method.quantile=0.5"]
    epochs = "epochs=2" if name == "planted" else "search_epochs=2"
    small = [argument for argument in SMALL[name] if not argument.startswith(epochs[:-1])]
    assert run(name, *small, *own, epochs)["method"] == "pba"


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("planted", ["method=bilevel"], "method=bilevel does not search over operations"),
        ("planted", ["method=ddas", "operations=Identity"], "unknown operation 'Identity'"),
        ("planted", ["operations=Rotat"], "did you mean 'Rotate'"),
        ("step_cost", ["method=dadaa"], "did you mean 'dada'"),
        ("step_cost", ["metod=dada"], "did you mean 'method='"),
        ("scale", ["trials=1,none"], "trials=1,none: expected whole numbers of at least 1"),
        ("scale", ["epochs=1"], "epochs=N: at least 2"),
        ("step_cost", ["rounds=many"], "rounds=many: expected a whole number"),
        ("proxies", ["policies=3"], "at least seeds=2 and policies=4"),
        ("late", ["policy=none.json"], "none.json: No such file"),
        ("ablation", [], "policy=PATH: which policy?"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, arguments: list[str], message: str
) -> None:
    program = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as ended:
        measure(program.main)
    assert message in str(ended.value.code)
    assert "\n" not in str(ended.value.code)


def test_plots_and_fractions_are_looked_at_before_anything_is_measured() -> None:
    assert plot_path("") is None
    with pytest.raises(RaysearchError, match="there is no folder nowhere"):
        plot_path("nowhere/p.png")
    with pytest.raises(RaysearchError, match=r"expected a name that ends in \.png"):
        plot_path("late.txt")
    assert lengths("1,0.5,0", 30) == [0, 15, 30]
    for text in ("0,half", "0,1.5", "nan", ""):
        with pytest.raises(RaysearchError, match="expected numbers from 0 to 1"):
            lengths(text, 30)


def test_proxies_compares_distinct_policies_that_are_always_the_same() -> None:
    uniform = Pairs.uniform(ops.OPERATIONS[1:15])
    policies = policies_of(uniform, 20, seed=0)
    assert len(policies) == 20
    assert len({policy.probabilities.numpy().tobytes() for policy in policies.values()}) == 20
    assert policies == policies_of(uniform, 20, seed=0)
    assert list(policies_of(uniform, 12, seed=0).items()) == list(policies.items())[:12]
    assert policies["uniform"] == uniform
    first = policies["inverted"].probabilities.sum(1)
    assert first[uniform.operations.index("Invert")] == 1
    faint = set(policies["harmless"].operation_rates().items())
    assert {name for name, rate in faint if rate} == {
        *("AutoContrast", "Posterize", "Color", "Sharpness")
    }


def test_proxies_needs_no_particular_operations() -> None:
    policies = policies_of(Pairs.uniform(["Rotate", "Blur"]), 8, seed=0)
    assert len(policies) == 8
    assert "shifted" not in policies


def test_correlations_are_those_of_known_points() -> None:
    x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    both = correlations(x, [value**3 for value in x])
    assert both["spearman"] == [1.0, 1.0, 1.0]
    assert both["pearson"] is not None
    assert both["pearson"][1] < both["pearson"][0] < both["pearson"][2] < 1
    falling = correlations(x, [-value for value in x])["spearman"]
    assert falling is not None
    assert falling[0] == -1
    assert correlations(x, [1.0] * 6) == {"pearson": None, "spearman": None}


@pytest.mark.parametrize("n", range(5))
def test_late_has_the_policy_in_the_first_or_the_last_epochs(n: int) -> None:
    policy = trivial_augment()
    for side, window in windows(n, 4).items():
        phases = window.of(policy, 4).phases
        expected = range(n) if side == "first" else range(4 - n, 4)
        assert [i for i, phase in enumerate(phases) if phase == policy] == list(expected)
    assert len(set(windows(n, 4).values())) == (1 if n in (0, 4) else 2)


def test_ablation_removes_the_most_probable_elements_one_after_the_other() -> None:
    p = torch.tensor([[0.2, 0.1, 0.0], [0.1, 0.1, 0.0], [0.3, 0.1, 0.1]])
    policy = Pairs(["Rotate", "Invert", "Equalize"], torch.tensor([0.5, 1.0, 1.0]), p)
    (first, one), (second, two) = removals(policy, 2)
    assert (first, second) == ("Rotate(0.50)", "Equalize")
    assert one == policy.without([0])
    assert two == policy.without([0, 2])
    with pytest.raises(RaysearchError, match="remove=3: the policy has 3 elements"):
        removals(policy, 3)


def test_ablation_removes_candidates() -> None:
    magnitudes, p = torch.tensor([0.5, 1.0, 1.0]), torch.tensor([0.2, 0.5, 0.3])
    policy = Candidates(["Rotate", "Invert", "Rotate"], magnitudes, p, 0.8)
    (first, one), (second, two) = removals(policy, 2)
    assert (first, second) == ("Invert(1.00)", "Rotate(1.00)")
    assert isinstance(one, Candidates)
    assert isinstance(two, Candidates)
    assert one.probabilities.tolist() == pytest.approx([0.4, 0, 0.6])
    assert two.probabilities.tolist() == pytest.approx([1, 0, 0])
    assert one.augment == policy.augment


def test_ablation_removes_sub_policies_that_contain_the_operation() -> None:
    names, half = [("Rotate", "Invert"), ("Rotate", "Color"), ("Equalize", "Color")], 0.5
    weights, halves = torch.tensor([0.5, 0.3, 0.2]), torch.full((3, 2), half)
    policy = SubPolicies(names, weights, halves, halves)
    [(name, left)] = removals(policy, 1)
    assert name == "Rotate"
    assert left == SubPolicies(names[2:], torch.ones(1), halves[:1], halves[:1])
    with pytest.raises(RaysearchError, match="nothing of the policy would be left"):
        removals(policy, 3)


def test_ablation_needs_elements() -> None:
    with pytest.raises(RaysearchError, match="kind random_operations"):
        removals(trivial_augment(), 1)


def test_workers_time_is_divided_into_computing_waiting_and_overhead() -> None:
    ran = [
        trial_overhead.Ran(0, 1, began=0.0, seconds=4.0),
        trial_overhead.Ran(0, 2, began=0.0, seconds=2.0),
        trial_overhead.Ran(0, 2, began=2.5, seconds=1.0),  # free at 2: half a second of overhead
        trial_overhead.Ran(1, 1, began=5.0, seconds=5.0),  # the round could begin at 4
        trial_overhead.Ran(1, 2, began=4.0, seconds=6.0),  # waited from 3.5 to 4
    ]
    spent = trial_overhead.account(ran)
    assert sorted(spent.overheads) == [0.0, 0.5, 1.0]
    assert spent.busy == 11 / 12
    assert spent.idle == 0.5 / 12


def test_what_a_search_had_cost_when_an_operation_came_first_to_stay() -> None:
    def rows(*shares: float) -> list[dict[str, float]]:
        return [
            {"share/Rotate": share, "share/Invert": 0.4, "epoch_equivalents": 2.0 * i}
            for i, share in enumerate(shares, start=1)
        ]

    assert found_after(rows(0.1, 0.5, 0.3, 0.5, 0.6), "Rotate") == 8.0
    assert found_after(rows(0.5, 0.6), "Rotate") == 2.0
    assert found_after(rows(0.5, 0.4), "Rotate") is None
    assert found_after([{"epoch_equivalents": 1.0}], "Rotate") is None
