"""A setting that is text is taken as it was typed, everywhere."""

from __future__ import annotations

import enum
import unicodedata
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch

from raysearch.cli._compare import own_settings
from raysearch.cli._main import main
from raysearch.errors import RaysearchError
from raysearch.experiment._compose import choices, compose, config_dir, from_yaml, to_yaml
from raysearch.experiment._declared import declared, is_text, is_text_list
from raysearch.experiment._experiment import (
    Experiment,
    compose_experiment,
    compose_run,
    read_experiment,
)
from raysearch.experiment._folder import create, resume
from raysearch.experiment._overrides import overrides_of
from raysearch.experiment._plan import slug
from raysearch.settings import leaves

TEXTS = [
    "Fotos für Müller",
    "猫",
    "photos (1)",
    "lr=0.1",
    "#1",
    "a,b",
    "C:\\x",
    "a=b",
    "{x}",
    "{x: 1}",
    "[x]",
    "[a,b]",
    "$HOME",
    "${x}",
    "${",
    "${seeds}",
    "\\${x}",
    "${oc.env:HOME}",
    "'quoted'",
    '"quoted"',
    "it's",
    " leading",
    "trailing ",
    "a\tb",
    "a\nb",
    "695e0514",
    "1_000",
    "true",
    "no",
    "null",
    "~",
    "None",
    "007",
    "2024",
    "1e5",
    "inf",
    "nan",
    "0x1f",
    "12:30:00",
    "2024-01-01",
    "???",
    "!tag",
    "&a",
    "*a",
    "- a",
    "a: b",
    "a #b",
    "%x",
    "@x",
    "`x`",
    "|",
    "😀",
    unicodedata.normalize("NFD", "Müller"),
    "a\\",
    "choice(a,b)",
    "range(1,3)",
    "--x",
]
TYPED = ["data.root", "data.label_column", "storage", "tracking.experiment", "runs_dir"]


def many() -> list[dict[str, str]]:
    """Each text in a setting or other."""
    texts = [text for text in TEXTS if text != "~"]  # that is the home directory
    starts = range(0, len(texts), len(TYPED))
    return [dict(zip(TYPED, texts[start:], strict=False)) for start in starts]


def came_back(asked: Experiment, folder: Path) -> Experiment:
    """An experiment's settings through its file."""
    (folder / "config.yaml").write_bytes(to_yaml(asked.document()).encode())
    return read_experiment(folder / "config.yaml")


@pytest.mark.parametrize("texts", many(), ids=lambda texts: ascii(next(iter(texts.values()))))
def test_text_is_taken_as_it_was_typed(texts: dict[str, str], tmp_path: Path) -> None:
    asked = compose_run(["data=parquet", *(f"{key}={text}" for key, text in texts.items())])
    assert texts.items() <= dict(leaves(asked.values)).items()
    assert came_back(asked, tmp_path) == asked
    assert compose_run([*overrides_of({"data": "parquet", **texts})]) == asked


def test_text_is_taken_as_it_was_typed_in_a_comparison(tmp_path: Path) -> None:
    for one, other in zip(TEXTS[:12], TEXTS[12:24], strict=True):
        own = [f"aws.method.shared_checkpoint={one}", f"tracking.uri={other}"]
        compared = compose_experiment(["none", "aws"], own)
        assert compared.methods["aws"].values["method"]["shared_checkpoint"] == one
        assert compared.settings.tracking.uri == other
        assert came_back(compared, tmp_path) == compared


@pytest.mark.parametrize(
    "name", ["695e0514", "1_000", "true", "null", "007", "2024", "1e5", "inf", "no", "0x1f"]
)
def test_a_name_that_looks_like_something_else(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    made = create(compose_run([f"name={name}"]))
    made.release()
    assert made.path == Path("runs") / name
    assert main(["--resume", name, "seeds=2", "x"]) == 2
    assert "from the run's folder: leave out seeds=2 x" in capfd.readouterr().err
    again = resume(name, "runs")
    assert again.experiment.settings.name == name
    again.release()


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("[a,b]", ["a", "b"]),
        ("[a, b ]", ["a", "b"]),
        ("[runs/a,runs/photos (1)]", ["runs/a", "runs/photos (1)"]),
        (
            "[runs/Fotos für Müller,runs/猫,runs/#1]",
            ["runs/Fotos für Müller", "runs/猫", "runs/#1"],
        ),
        ("['a,b',\"c,d\"]", ["a,b", "c,d"]),
        ("[it's,b's]", ["it's", "b's"]),
        ("['a'b,c]", ["'a'b", "c"]),
        ("[a=b,${x},{y},[z],C:\\x]", ["a=b", "${x}", "{y}", "[z]", "C:\\x"]),
        ("[007,1_000,true,null,1e5]", ["007", "1_000", "true", "null", "1e5"]),
        ("[]", []),
        ("[ ]", []),
        ("[' a ']", [" a "]),
    ],
)
def test_lists_of_text(typed: str, read: list[str]) -> None:
    given, _ = own_settings([f"runs={typed}"])
    assert list(given.runs) == read
    assert compose([f"evaluation.policies={typed}"]).settings.evaluation.policies == read


def test_a_home_directory_where_a_path_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    lines = ["data.root=~/photos", "runs_dir=~/runs", "storage=~", "name=x"]
    lines += ["evaluation.policies=[none,~/p.json]", "tracking.experiment=~/x"]
    found = compose_run(["data=folder", *lines])
    assert found.settings.data.model_dump()["root"] == "/home/me/photos"
    assert (found.settings.runs_dir, found.settings.storage) == ("/home/me/runs", "/home/me")
    assert found.settings.evaluation.policies == ["none", "/home/me/p.json"]
    assert found.settings.tracking.experiment == "~/x"
    given, _ = own_settings(["runs=[~/runs/a,b]"])
    assert given.runs == ("/home/me/runs/a", "b")
    named = {"data": "folder", "data.root": Path("~/photos")}
    assert compose_run([*overrides_of(named)]).values["data"]["root"] == "/home/me/photos"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("search.epochs=#1", "cannot read 'search.epochs=#1': expected a number"),
        ("search.epochs=${seeds}", "search.epochs='${seeds}': expected a whole number"),
        ("search.epochs={a: 1}", "unknown setting 'search.epochs.a'"),
        ("search.epochs=a b)", "cannot read"),
        ("search.epochs=", "search.epochs='': expected a whole number"),
        (f"search.epochs={'9' * 5000}", "cannot read"),
        ("seeds=1,2", "seeds=1,2: one value per run; a list is written"),
        ("search=null", "search=None: expected a group of settings"),
        ("search=x", "search='x': expected a group of settings"),
        ("search={epoch: 1}", "unknown setting 'search.epoch': did you mean 'search.epochs'"),
        ("data.size=(1", "cannot read"),
        ("=5", "cannot read '=5': expected KEY=VALUE"),
        ("~search.epochs=5", "unknown setting '~search.epochs'"),
        ("data@x=digits", "unknown setting 'data@x'"),
        ("method=", "method=: a name is missing"),
        ("method=a b", "unknown method 'a b'"),
        ("method=[dada]", r"unknown method '\[dada\]'"),
        ("tracking.name=none", "tracking.name=none: write tracking=none"),
        ("tracking.enabled=false", "unknown setting 'tracking.enabled'"),
        ("date=digits", "unknown setting 'date': did you mean 'data' or 'data.size'"),
        ("data.root=photos", "data.root needs data=folder"),
        ("data.name=folder", "data.name=folder: write data=folder"),
        ("name=a b", "name='a b': use letters"),
        ("name=", "name='': use letters"),
        ("runs_dir=\udcff", "expected text in Unicode"),
        ("runs_dir=", "runs_dir='': expected a word that is not empty"),
        ("method.objective=#1", None),
        ("device=#1", "unknown choice for device '#1'"),
        ("evaluation.policies=none", "evaluation.policies='none': expected a list"),
        ("evaluation.policies=[none,]", "expected a word that is not empty"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(line: str, said: str | None) -> None:
    if said is None:  # a choice of the method's, which checks it itself
        assert compose([line]).values["method"]["objective"] == "#1"
        return
    with pytest.raises(RaysearchError, match=said.replace("$", r"\$").replace("{s", r"\{s")) as got:
        compose([line])
    assert "\n" not in str(got.value)
    assert not any(word in str(got.value) for word in ("Hydra", "LexerNoViable", "hydra"))


def test_numbers_and_lists_are_read_as_they_were() -> None:
    lines = ["method=ddas", "seeds=[3, 4]", "search.lr=1e-3", "evaluation.nesterov=false"]
    lines += ["method.levels=[0.1,0.2]", "data.limit=null", "data.size=[32,48]"]
    lines += ["data.predefined={flip: true, padding: 2}", "search.epochs=1_0", "seeds=[5]"]
    values = compose(lines).values
    assert (values["seeds"], values["search"]["lr"]) == ([5], 1e-3)
    assert values["evaluation"]["nesterov"] is False
    assert values["method"]["levels"] == [0.1, 0.2]
    assert (values["data"]["limit"], values["data"]["size"]) == (None, [32, 48])
    predefined = {"flip": True, "vertical_flip": False, "padding": 2, "cutout": 0}
    assert values["data"]["predefined"] == predefined
    assert values["search"]["epochs"] == 10
    assert compose(["metric=null", "task=null"]).settings.metric is None
    assert compose(["method=bilevel", "evaluation.epochs=7"]).settings.search.epochs == 7
    assert compose_run([*overrides_of({"method": "aws", "search.lr": 0.5})]).settings.finetune


class Spelt(str, enum.Enum):  # noqa: UP042  # as many programs have them
    DDAS = "ddas"


def test_numbers_and_words_of_libraries_are_plain_ones(tmp_path: Path) -> None:
    given = {
        "method": Spelt.DDAS,
        "name": np.str_("x"),
        "runs_dir": PurePosixPath("a/b"),
        "seeds": np.arange(2),
        "search": {"lr": np.float64(0.5), "epochs": np.int64(3), "nesterov": np.bool_(False)},
        "evaluation": {"lr": torch.tensor(0.25), "seeds": (np.int32(1), 2)},
        "data.size": [np.int64(9), 8],
    }
    plain = {"name": "x", "runs_dir": "a/b", "seeds": [0, 1], "data.size": [9, 8]}
    plain |= {"search.lr": 0.5, "search.epochs": 3, "search.nesterov": False}
    plain |= {"method": "ddas", "evaluation.lr": 0.25, "evaluation.seeds": [1, 2]}
    asked = compose_run([*overrides_of(given)])
    assert asked == compose_run([*overrides_of(plain)])
    assert came_back(asked, tmp_path) == asked
    for wrong in (b"x", {1, 2}, object(), Decimal("0.5")):
        with pytest.raises(RaysearchError, match=r"seeds=.*expected a number, a word"):
            list(overrides_of({"seeds": wrong}))


def test_every_setting_of_every_file_has_a_declared_type() -> None:
    """So that none of text is left to a grammar."""
    for method in choices("method"):
        for data in ("digits", "folder", "parquet"):
            values = compose([f"method={method}", f"data={data}"]).values
            _declared(values, values["method"]["name"])


def _declared(values: dict[str, Any], method: str, path: str = "") -> None:
    for key, value in values.items():
        where = f"{path}{key}"
        if isinstance(value, dict) and where != "data.predefined":
            _declared(value, method, f"{where}.")
        elif where not in ("data.predefined", "data.size"):
            kind = declared(where, method)
            assert kind is not Any, where
            assert is_text(kind) or not isinstance(value, str) or value == "auto", where
            texts = isinstance(value, list) and any(isinstance(each, str) for each in value)
            assert is_text_list(kind) or not texts, where


def test_yaml_goes_through_a_file(tmp_path: Path) -> None:
    values = {"texts": TEXTS, "numbers": [1, 1e-5, 5e-4, 1e300, True, None], "of": {"a": "ä"}}
    (tmp_path / "x.yaml").write_bytes(to_yaml(values).encode())
    assert from_yaml(tmp_path / "x.yaml") == values
    assert "Fotos für Müller" in to_yaml(values)
    assert to_yaml({"name": "695e0514"}) == "name: '695e0514'\n"  # for readers of YAML 1.2
    assert from_yaml(config_dir() / "config.yaml")["search"]["weight_decay"] == 5e-4


def test_policy_files_whose_names_differ_are_told_apart() -> None:
    names = [
        "猫.json",
        "犬.json",
        "a b.json",
        "a-b.json",
        "a/b.json",
        "😀.json",
        "x" * 300 + ".json",
    ]
    assert len({slug(name) for name in names}) == len(names)
    assert all(len(slug(name)) < 120 for name in names)


def test_mistakes_with_paths_name_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for line in ("data.root=Fotos für (1)", "data.root=${x}", "data.root=a,b"):
        assert main(["data=folder", line]) == 2
        assert f"{tmp_path}/{line.partition('=')[2]}" in capfd.readouterr().err
    assert main(["data=folder", "data.root="]) == 2
    assert "data.root='': expected a word that is not empty" in capfd.readouterr().err
