"""Label files as other programs write them, and what is refused of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_data_layout import said, sizes
from test_data_multi_label import fill, labels_by_shade, load, refusal

NAMES = ["cat", "dog"] * 5
LABELS = {number: number % 2 for number in range(10)}


def text(rows: list[list[str]], separator: str = ",") -> str:
    return "".join(separator.join(row) + "\n" for row in rows)


def rows(paths: list[str]) -> list[list[str]]:
    return [["image", "label"], *map(list, zip(paths, NAMES, strict=False))]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_separators_and_encodings(
    tmp_path: Path, separator: str, encoding: str, ending: str
) -> None:
    paths = fill(tmp_path / "Käfer", 10)
    table = [["image", "label"]]
    table += [[f"Käfer/{path}", ("Käfer", "dog")[n % 2]] for n, path in enumerate(paths)]
    written = text(table, separator).replace("\n", ending)
    (tmp_path / "labels.csv").write_bytes(written.encode(encoding))
    data = load(tmp_path)
    assert data.classes == ("Käfer", "dog")
    assert labels_by_shade(data) == LABELS
    assert ("labels.csv is not in UTF-8" in said(data)) == (encoding == "cp1252")


@pytest.mark.parametrize("name", ["labels.tsv", "Labels.CSV", "label.csv"])
def test_names_of_label_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(text(rows(fill(tmp_path, 10)), "\t"))
    assert labels_by_shade(load(tmp_path)) == LABELS


@pytest.mark.parametrize("form", ["windows", "blank", "quoted", "padded", "index"])
def test_what_programs_write(tmp_path: Path, form: str) -> None:
    paths = fill(tmp_path, 10)
    (tmp_path / paths[0]).rename(tmp_path / "images" / "a, b.png")
    table = [["image", "label"], ["images/a, b.png", "cat"], *rows(paths)[2:]]
    quoted = [[f'"{cell}"' for cell in row] for row in table]
    lines = text(quoted)
    if form == "windows":
        lines = text([[cell.replace("/", "\\") for cell in row] for row in quoted])
        lines = lines.replace("images\\3", ".\\images\\3")
    elif form == "blank":
        lines = "\n" + lines.replace("\n", "\n\n,\n  \n")
    elif form == "quoted":
        lines = lines.replace('"dog"', '"dog, black"').replace('"label"', '"label","text"')
        lines = lines.replace('dog, black"', 'dog, black","a ""good"" dog"')
        lines = lines.replace('"cat"', '"cat",""')
    elif form == "padded":
        lines = text([[*row, ""] for row in quoted], ", ")
    elif form == "index":
        lines = text([["" if n == 0 else str(n - 1), *row] for n, row in enumerate(quoted)])
    (tmp_path / "labels.csv").write_text(lines)
    data = load(tmp_path)
    assert data.classes == ("cat", "dog, black" if form == "quoted" else "dog")
    assert labels_by_shade(data) == LABELS


def metadata(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        lines = [list(records[0]), *([str(v) for v in record.values()] for record in records)]
        path.write_text(text(lines))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        pq.write_table(pa.Table.from_pylist(records), path)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("labels", [NAMES, [0, 1] * 5], ids=["text", "numbers"])
@pytest.mark.parametrize("parts", [("",), ("train", "validation", "test"), ("train", "test")])
def test_metadata_of_the_hub(
    tmp_path: Path, parts: tuple[str, ...], labels: list[Any], kind: str
) -> None:
    for part in parts:
        folder = tmp_path / "data" / part
        records = [
            {"text": f"number {n}", "file_name": path, "label": label}
            for n, (path, label) in enumerate(zip(fill(folder, 10), labels, strict=True))
        ]
        metadata(folder / f"metadata.{kind}", records)
    data = load(tmp_path)
    assert data.classes == tuple(str(label) for label in labels[:2])
    assert labels_by_shade(data) == LABELS
    assert [*data.given] == [
        "train",
        *(["val"] if len(parts) == 3 else []),
        *["test"] * any(parts[1:]),
    ]
    assert "column of data/" in said(data)
    assert "not read: 'text'" in said(data)


def test_lists_and_nulls_of_metadata(tmp_path: Path) -> None:
    paths = fill(tmp_path, 10)
    labels = [["a"], ["a", "b"], [], None, ["b"]] * 2
    records = [{"file_name": p, "label": own} for p, own in zip(paths, labels, strict=True)]
    metadata(tmp_path / "metadata.jsonl", records)
    data = load(tmp_path)
    assert (data.kind, data.classes) == ("multi", ("a", "b"))
    assert labels_by_shade(data)[1] == [1, 1]


def test_metadata_without_labels_beside_classes(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        fill(tmp_path / name, 5)
    metadata(tmp_path / "metadata.csv", [{"file_name": "cat/images/0.png", "text": "a cat"}])
    data = load(tmp_path)
    assert data.classes == ("cat", "dog")
    assert "not read: metadata.csv" in said(data)


def test_two_files_of_labels_are_refused(tmp_path: Path) -> None:
    records = [{"file_name": path, "label": "a"} for path in fill(tmp_path, 2)]
    for kind in ("csv", "jsonl"):
        metadata(tmp_path / f"metadata.{kind}", records)
    assert "metadata.csv and metadata.jsonl may each hold the labels: keep one" in refusal(tmp_path)
    for name in ("metadata.csv", "metadata.jsonl"):
        (tmp_path / name).unlink()
    for name in ("train.csv", "train_labels.csv"):
        metadata(tmp_path / name, records)
    assert "'train.csv' and 'train_labels.csv' may each be the train part" in refusal(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("train_labels.csv", "test_labels.csv"),
        ("labels_train.csv", "labels_test.csv"),
        ("trainLabels.csv", "testLabels.csv"),
        ("labels-train.tsv", "labels-test.tsv"),
        ("train.csv", "test.csv"),
        ("birds_train.csv", "birds_test.csv"),
        ("train_annotations.csv",),
        ("train.csv",),
    ],
)
@pytest.mark.parametrize("place", ["", "images", "pictures", "parts"])
def test_files_of_parts_beside_images(tmp_path: Path, names: tuple[str, ...], place: str) -> None:
    for start, name in enumerate(names):
        part = ("train", "test")[start] if place == "parts" else place
        paths = fill(tmp_path / "made", 10)
        kept = [Path(path).name for path in paths]
        (tmp_path / part).mkdir(exist_ok=True)
        for number, path in enumerate(paths):
            (tmp_path / "made" / path).rename(tmp_path / part / kept[number])
        ids = kept if start == 0 else [path.removesuffix(".png") for path in kept]
        (tmp_path / name).write_text(text(rows(ids)))
    data = load(tmp_path)
    assert sizes(data) == ((10, 0, 10) if len(names) == 2 else (8, 0, 2))
    assert labels_by_shade(data) == LABELS


def test_images_that_may_lie_in_two_folders(tmp_path: Path) -> None:
    paths = fill(tmp_path / "a", 10)
    fill(tmp_path / "b", 10)
    (tmp_path / "labels.csv").write_text(text(rows(paths)))
    assert "'images/0.png' and others may lie in a and b: write the folder into" in refusal(
        tmp_path
    )


@pytest.mark.parametrize("form", ["column", "columns", "folders"])
def test_one_file_that_tells_the_parts(tmp_path: Path, form: str) -> None:
    of = ["train"] * 6 + ["valid"] * 2 + ["Test"] * 2
    paths = fill(tmp_path, 10)
    if form == "folders":
        for number, path in enumerate(paths):
            paths[number] = f"set/{of[number]}/{number}.png"
            (tmp_path / "set" / of[number]).mkdir(parents=True, exist_ok=True)
            (tmp_path / path).rename(tmp_path / paths[number])
        table = rows(paths)
    elif form == "column":
        table = [["file", "class", "split"], *map(list, zip(paths, NAMES, of, strict=True))]
    else:
        table = [["file", "split", "cat", "dog"]]
        table += [[p, of[n], str(1 - n % 2), str(n % 2)] for n, p in enumerate(paths)]
    (tmp_path / "labels.csv").write_text(text(table))
    data = load(tmp_path)
    assert sizes(data) == (6, 2, 2)
    expected: dict[int, Any] = LABELS
    if form == "columns":
        expected = {number: [1 - number % 2, number % 2] for number in range(10)}
    assert labels_by_shade(data) == expected
    assert "the labels are those of labels.csv, which tells train, val, test" in said(data)


def test_columns_in_any_order(tmp_path: Path) -> None:
    paths = fill(tmp_path, 10)
    table = [["name", "breed", "file", "kind"]]
    table += [[f"pet {n}", f"breed {n}", path, NAMES[n]] for n, path in enumerate(paths)]
    (tmp_path / "labels.csv").write_text(text(table))
    assert "'pet 0' in column 'name' is not 0 or 1; if one column holds" in refusal(tmp_path)
    data = load(tmp_path, label_column="kind")
    assert labels_by_shade(data) == LABELS
    assert "2 columns of labels.csv are not read: 'name', 'breed'" in said(data)
    assert "no column 'sort' (data.label_column)" in refusal(tmp_path, label_column="sort")
    assert "no column 'photo' (data.image_column)" in refusal(tmp_path, image_column="photo")
    swapped = [[b, a] for a, b in rows(paths)]
    swapped[1:1] = [["cat", f"gone-{number}.png"] for number in range(30)]
    (tmp_path / "labels.csv").write_text(text(swapped))
    assert labels_by_shade(load(tmp_path, on_error="skip")) == LABELS


@pytest.mark.parametrize(("yes", "no"), [("1.0", "0.0"), ("True", "False"), ("TRUE", "FALSE")])
@pytest.mark.parametrize("name", ["labels.csv", "train/_classes.csv"])
def test_columns_of_classes(tmp_path: Path, name: str, yes: str, no: str) -> None:
    paths = fill((tmp_path / name).parent, 10)
    table = [["file", "cat", "dog"]]
    table += [[path, *((no, yes) if n % 2 else (yes, no))] for n, path in enumerate(paths)]
    (tmp_path / name).write_text(text(table))
    expected = {number: [1 - number % 2, number % 2] for number in range(10)}
    assert labels_by_shade(load(tmp_path)) == expected


@pytest.mark.parametrize("name", ["mine.csv", "metadata.csv", "annotations.jsonl"])
def test_what_may_be_a_label_file_is_named(tmp_path: Path, name: str) -> None:
    records = [{"file_name": path, "kind": "a"} for path in fill(tmp_path, 10)]
    metadata(tmp_path / name, records)
    assert f"if {name} holds the labels, name it labels{Path(name).suffix}" in refusal(tmp_path)
    (tmp_path / name).rename(tmp_path / "train.parquet")
    assert "if train.parquet holds the images, give data=parquet" in refusal(tmp_path)


def test_a_part_without_labels_is_said(tmp_path: Path) -> None:
    paths = fill(tmp_path, 10)
    (tmp_path / "train.csv").write_text(text(rows(paths)))
    for name in ("test.csv", "sample_submission.csv"):
        (tmp_path / name).write_text("id\n1\n2\n")
    notes = said(load(tmp_path))
    assert "test is not read, as test.csv has no column of labels" in notes
    assert "the labels are those of train.csv;" in f"{notes};"
    assert "not read: sample_submission.csv, test.csv" in notes


@pytest.mark.parametrize("line", ["[1]", "{", '"a"'])
def test_lines_that_are_no_objects(tmp_path: Path, line: str) -> None:
    (tmp_path / "labels.jsonl").write_text(line + "\n")
    assert f"{tmp_path / 'labels.jsonl'}" in refusal(tmp_path)
