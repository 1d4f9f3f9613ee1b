"""Whole runs of what is not plain classification: several labels an image, and other metrics."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Ask, CommandLine
from PIL import Image
from sklearn.datasets import load_digits

from raysearch.errors import RaysearchError
from raysearch.experiment._api import search

SHORT = [
    "tracking=none",
    "model=small_cnn",
    "search.epochs=2",
    "evaluation.epochs=2",
    "evaluation.seeds=2",
    "evaluation.policies=[none,learned]",
    "name=mine",
    *("--num-cpus", "1"),
]
AWS = [
    "method=aws",
    "method.best=1",
    "method.updates=1",
    "finetune.epochs=1",
    "finetune.parallel=2",
]


def pasted(count: int) -> tuple[np.ndarray, list[list[int]]]:
    """Two digits of 0 to 2 side by side, uint8 [N, 8, 16], and which there are."""
    digits = load_digits(n_class=3)
    chosen = np.random.default_rng(0).integers(0, len(digits.images), (count, 2))
    images = np.concatenate([digits.images[chosen[:, 0]], digits.images[chosen[:, 1]]], 2)
    labels = [sorted({int(label) for label in pair}) for pair in digits.target[chosen]]
    return (images * 15.9).astype(np.uint8), labels


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_parquet(root: Path) -> None:
    images, labels = pasted(160)
    rows = [{"bytes": png(image), "path": None} for image in images]
    root.mkdir()
    pq.write_table(pa.table({"image": rows, "label": labels}), root / "train.parquet")


@pytest.mark.usefixtures("one_ray")
def test_several_labels_an_image_from_parquet(cli: CommandLine, ask: Ask) -> None:
    write_parquet(cli.folder / "pairs")
    data = ["data=parquet", "data.root=pairs", "data.predefined.flip=false"]
    tracking = f"tracking.uri=sqlite:///{cli.folder}/mlflow.db"
    done = ask(cli, *data, *AWS, *SHORT[1:], tracking)
    assert done.returncode == 0, done.stderr
    assert "Test mean average precision (higher is better)" in " ".join(done.stdout.split())
    run = cli.folder / "runs" / "mine"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["metric"]["name"] == "map"
    assert all(0 < row["mean"] <= 1 for row in summary["errors"].values())
    assert "higher is better" in (run / "report.html").read_text()
    [table] = run.glob("*.csv")
    with table.open() as file:
        assert {"test_map", "test_map_std"} <= set(next(csv.reader(file)))
    with sqlite3.connect(cli.folder / "mlflow.db") as tracked:
        keys = {key for (key,) in tracked.execute("select distinct key from metrics")}
    assert {"test_map", "val_map"} <= keys
    refused = ask(cli, *data, *SHORT, "metric=error", "name=other")
    assert refused.returncode != 0
    assert "unknown metric of task=multi_label 'error' (known: map)" in refused.stderr
    refused = ask(cli, *data, *SHORT, "task=classification", "name=other")
    assert "task=classification: an image of" in refused.stderr
    assert not (cli.folder / "runs" / "other").exists()


@pytest.mark.usefixtures("one_ray")
def test_auroc_of_classes_of_unlike_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    digits = load_digits(n_class=2)
    rare = (np.arange(len(digits.target)) % 6 == 0) | (digits.target == 0)
    images, labels = (digits.images[rare] * 15.9).astype(np.uint8), digits.target[rare]
    result = search(
        (images, labels),
        model="small_cnn",
        metric="auroc",
        quiet=True,
        num_cpus=1,
        tracking="none",
        search={"epochs": 2},
        evaluation={"epochs": 2, "seeds": 1, "policies": ["learned"]},
    )
    assert result.summary["metric"]["name"] == "auroc"
    assert result.summary["guess"] == 0.5
    assert result.frame["test_auroc"].dropna().between(0.5, 1).all()
    assert "test_auroc" in result.table
    one_class = (images[labels == 0][:20], labels[labels == 0][:20])
    with pytest.raises(RaysearchError, match="metric=auroc has no value on the test"):
        search(one_class, metric="auroc", quiet=True)
