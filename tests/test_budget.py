"""A race's budget that is given as a time, and the race as the page shows it."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from _fake_engine import Recorded
from _measured import ERRORS, baselines, one_method, searches

from raysearch import results
from raysearch.engine import Capacity, Wish
from raysearch.errors import RaysearchError
from raysearch.experiment import _budget, _forecast
from raysearch.experiment._budget import in_trainings
from raysearch.experiment._compose import from_yaml
from raysearch.experiment._count import Plain
from raysearch.experiment._experiment import Experiment, compose_experiment, compose_run
from raysearch.experiment._folder import Folder
from raysearch.experiment._plan import make_plan
from raysearch.experiment._run import begin
from raysearch.experiment._session import earlier, prepare
from raysearch.methods.auto import Auto, Race
from raysearch.policy import Basic
from raysearch.results import MethodMeasured

QUICK = ["tracking=none", "data.limit=100", "evaluation.epochs=10", "evaluation.seeds=1"]
QUICK = [*QUICK, "name=mine", "device=cpu"]
TRAINING = 10.0  # seconds of a core, of 100 images for ten epochs
CPUS = Capacity(2, 0, "cpu")


def let_a_training_take(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    plain = Plain(seconds=seconds / 1000, parameters=1000)
    for module in (_budget, _forecast):
        monkeypatch.setattr(module, "plain_cost", lambda *_: plain)


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> Recorded:
    """The engine with recorded answers, in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    let_a_training_take(monkeypatch, TRAINING)
    return Recorded.in_place(monkeypatch)


def carry_out(experiment: Experiment, folder: Folder | None = None) -> None:
    begin(prepare(experiment, Wish("cpu", 2, 0), folder=folder), quietly=True)


def stored() -> str:
    """The budget in the experiment's file."""
    methods = from_yaml(Path("runs/mine/config.yaml"))["methods"]
    return str(methods["auto"]["method"]["budget"])


def test_it_is_the_methods_budget() -> None:
    assert compose_run(["budget=30m"]) == compose_run(["method=auto", "method.budget=30m"])


def test_a_time_is_converted_to_trainings_on_all_cores(recorded: Recorded) -> None:
    plan = in_trainings(make_plan(compose_run([*QUICK, "budget=30s"]), CPUS), CPUS)
    assert plan.experiment.values["method"]["budget"] == "6.0x"  # 30 s of two cores
    method = plan.parts["auto"].method
    assert isinstance(method, Auto)
    assert method.budget == "6.0x"
    assert len(method.candidates) < 17  # settled: digits have no other predefined than crops
    assert plan.parts["auto"].configuration == plan.experiment.methods["auto"]


def test_trainings_stay_as_they_are(recorded: Recorded) -> None:
    for asked in ("method=auto", "method=none"):
        plan = make_plan(compose_run([*QUICK, asked]))
        assert in_trainings(plan, None).experiment == plan.experiment


@pytest.mark.parametrize(
    ("capacity", "budget", "said"),
    [
        (Capacity(2, 1, "cuda"), "1h", "budget=1h: how long a training takes on a GPU"),
        (None, "1h", "budget=1h: how long a training takes on a GPU or a cluster is not known"),
        (CPUS, "4s", r"budget=4s: a single training takes about 10 s of a CPU core"),
    ],
)
def test_times_that_cannot_be_converted(
    capacity: Capacity | None, budget: str, said: str, recorded: Recorded
) -> None:
    plan = make_plan(compose_run([*QUICK, f"budget={budget}"]), CPUS)
    with pytest.raises(RaysearchError, match=said):
        in_trainings(plan, capacity)


def test_a_run_goes_on_with_the_trainings_that_it_began_with(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = compose_run([*QUICK, "budget=30s"])
    recorded.stop_after = 1
    with pytest.raises(KeyboardInterrupt):
        carry_out(asked)
    assert stored() == "6.0x"
    recorded.stop_after = None
    let_a_training_take(monkeypatch, 3 * TRAINING)  # on another machine
    folder = earlier(asked)
    assert folder is not None
    carry_out(folder.experiment, folder)
    assert stored() == "6.0x"
    first, again = (entry.search for entry in recorded.entries if entry.trial.stage == "search")
    assert isinstance(first, Race)
    assert isinstance(again, Race)
    assert again.heats == first.heats
    with pytest.raises(RaysearchError, match=r"began with method\.budget=6\.0x, not 5x"):
        earlier(compose_run([*QUICK, "budget=5x"]))


def test_so_does_a_comparison(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    line = [*QUICK, "seeds=1", "auto.budget=30s"]
    recorded.stop_after = 1
    with pytest.raises(KeyboardInterrupt):
        carry_out(compose_experiment(["auto"], line))
    recorded.stop_after = None
    let_a_training_take(monkeypatch, 3 * TRAINING)
    folder = earlier(compose_experiment(["none", "auto"], line))
    assert folder is not None
    assert folder.anew == []
    carry_out(folder.experiment, folder)
    assert stored() == "6.0x"


@pytest.mark.parametrize("other", ["none", "dada"])
def test_a_method_without_a_budget_is_another(other: str, recorded: Recorded) -> None:
    own = [*QUICK, "evaluation.policies=[learned]"]
    carry_out(compose_run([*own, "budget=30s"]))
    with pytest.raises(RaysearchError, match=r"runs/mine began with method\.\w+="):
        earlier(compose_run([*own, f"method={other}"]))


class Rows(HTMLParser):
    """The words in the cells of every table."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.rows[-1][-1] += data


FIRST = {"none": (0.5, 20.0, 3), "crop": (0.3, 10.0, 1), "predefined+affine@0.1": (0.31, 9.0, 2)}
LAST = {"crop": (0.21, 8.0, 2), "predefined+affine@0.1": (0.2, 6.0, 1)}


def heat(epoch: int, length: float, found: dict[str, tuple[float, float, int]]) -> dict[str, float]:
    """A row of the history, from validation loss, error and rank of each candidate."""
    row = {"epoch": float(epoch), "length": length, "entrants": float(len(found))}
    for name, (loss, error, rank) in found.items():
        row |= {f"val_loss/{name}": loss, f"val_error/{name}": error, f"rank/{name}": float(rank)}
    return row


def test_the_page_shows_the_race_the_winner_first(tmp_path: Path, undrawn: None) -> None:
    first = {**heat(1, 1 / 3, FIRST), "rank/flip": 4.0}  # which has diverged
    history = [first, heat(2, 1.0, LAST)]
    search = replace(searches("auto", 1)[0], history=history)
    policy = Basic(padding=1)
    method = MethodMeasured("learned", policy, {0: policy})
    trials = [search, *baselines(ERRORS, "auto")]
    summary = results.write(tmp_path, one_method(methods={"auto": method}, trials=trials))
    [race] = summary["methods"]["auto"]["races"]
    assert [name for name, _ in race["rows"]] == ["predefined+affine@0.1", "crop", "none", "flip"]
    html = (tmp_path / "report.html").read_text()
    assert "chose predefined + affine@0.1 from 4 candidates" in html
    assert "Of 4 candidates it chose <b>predefined+affine@0.1</b>" in html
    table = Rows()
    table.feed(html.partition("<h3>The race</h3>")[2].partition("</table>")[0])
    assert table.rows == [
        ["candidate", "heat 1: 33% of a training", "heat 2: 100% of a training"],
        ["predefined + affine@0.1", "0.310 / 9.00", "0.200 / 6.00"],
        ["crop", "0.300 / 10.00", "0.210 / 8.00"],
        ["none", "0.500 / 20.00", ""],
        ["flip", "diverged", ""],
    ]
