"""Which folders are parts and which are classes, whatever they are called or lies beside."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from test_data_folder import fill, load, refusal, write

from raysearch.data import Dataset
from raysearch.data._part_names import name_parts, part_words

TWO = {"ant": 3, "bee": 3}


def sizes(data: Dataset) -> tuple[int, int, int]:
    return len(data.train), 0 if data.val is None else len(data.val), len(data.test)


def said(data: Dataset) -> str:
    return "; ".join(data.notes)


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("train", "train Train TRAIN training Training_Set trainset TrainImages train2017 trn"),
        ("train", "train_data trainval train_val my-train images_train trainData train.images"),
        ("val", "val Val VALID valid Validation validation_set dev Dev devel eval Evaluation"),
        ("val", "val2017 valset validation-images val_split"),
        ("test", "test Test TESTING test-set TestSet tests holdout hold_out Hold-Out held out tst"),
        ("train", "entraînement Entrenamiento Trainingsdaten 训练 训练集"),
        ("val", "Validierung Validación VALIDAÇÃO 验证集"),
        ("test", "Prueba Testbilder 测试集"),
        (None, "trains latest contest invalid devil value train_test cat images testament out"),
    ],
)
def test_names_of_parts(part: str | None, names: str) -> None:
    for name in names.replace("held out", "held_out").split():
        assert part_words(name) == (None if part is None else (part, ())), name


def test_names_with_more_words_count_in_sets() -> None:
    assert name_parts(["seg_train", "seg_test", "seg_pred"], "").parts == {
        "train": ["seg_train"],
        "test": ["seg_test"],
    }
    assert name_parts(["train", "train_old", "test_unseen"], "").parts == {"train": ["train"]}
    assert name_parts(["train_station", "bus_stop"], "").parts == {}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Train", "Val", "Test"),
        ("TRAIN", "VALID", "TEST"),
        ("training", "dev", "testing"),
        ("training_set", "eval", "holdout"),
        ("train2017", "val2017", "test2017"),
        ("flowers_train", "flowers_valid", "flowers_test"),
        ("trainImages", "Validation", "Hold-Out"),
    ],
)
def test_parts_by_their_usual_names(tmp_path: Path, train: str, val: str, test: str) -> None:
    for name, count in ((train, 5), (val, 2), (test, 3)):
        fill(tmp_path / name, {"ant": count, "bee": count})
    data = load(tmp_path)
    assert data.classes == ("ant", "bee")
    assert sizes(data) == (10, 4, 6)
    assert f"train is read from {train}" in said(data)
    assert f"test is read from {test}" in said(data)


def test_the_users_own_test_is_used(tmp_path: Path) -> None:
    fill(tmp_path / "train", TWO)
    fill(tmp_path / "Test", {"ant": 1})
    assert sizes(load(tmp_path)) == (6, 0, 1)


@pytest.mark.parametrize("names", [("val", "dev"), ("test", "Testing"), ("train", "Training")])
def test_two_folders_for_one_part_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in {"train", *names}:
        fill(tmp_path / name, TWO)
    message = refusal(tmp_path)
    assert all(repr(name) in message for name in names)
    assert "keep one" in message


@pytest.mark.parametrize("name", ["extra", "unlabelled", "test_old", "Neu"])
def test_what_lies_beside_is_named(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "train", TWO)
    fill(tmp_path / "test", TWO)
    write(tmp_path / name / "1.png")
    write(tmp_path / "stray.png")
    write(tmp_path / "train" / "stray.png")
    (tmp_path / "README.md").write_text("no data")
    (tmp_path / "more.zip").write_bytes(b"data")
    data = load(tmp_path)
    assert sizes(data) == (6, 0, 6)
    for beside in (name, "stray.png", "train/stray.png", "more.zip"):
        assert any(f"{beside}" in note and "not read" in note for note in data.notes) or (
            "4 files or folders beside what is read are not read" in said(data)
        )
    assert "README" not in said(data)


def test_images_without_classes_are_no_part(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"ant": 10, "bee": 10})
    write(tmp_path / "test" / "1.png")
    data = load(tmp_path)
    assert sizes(data) == (16, 0, 4)
    assert "1 folder named as a part is not read, for want of class folders in it: test" in said(
        data
    )


@pytest.mark.parametrize("names", [("Train", "Test"), ("train", "val"), ("TRAIN", "dev", "test")])
def test_parts_are_never_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    fill(tmp_path, dict.fromkeys(names, 5))
    message = refusal(tmp_path)
    assert "hold images and no class folders" in message
    assert repr(names[0]) in message


@pytest.mark.parametrize("name", ["train", "valid", "Dev", "training"])
def test_a_class_that_is_called_like_a_part(tmp_path: Path, name: str) -> None:
    fill(tmp_path, {name: 5, "bus": 5, "car": 5})
    data = load(tmp_path)
    assert sorted(data.classes) == sorted([name, "bus", "car"])
    assert "1 folder named as a part is read as a class, with images and no folders" in said(data)


def test_a_class_or_images_to_test_on(tmp_path: Path) -> None:
    fill(tmp_path, {"test": 5, "bus": 5, "car": 5})
    message = refusal(tmp_path)
    assert "'test' may be a class" in message
    assert "put all classes into DIR/train" in message
    fill(tmp_path / "all" / "train", {"test": 5, "bus": 5})
    assert load(tmp_path / "all").classes == ("bus", "test")


def test_a_part_beside_the_classes(tmp_path: Path) -> None:
    fill(tmp_path, {"ant": 4, "bee": 4})
    fill(tmp_path / "test", {"ant": 1, "bee": 2})
    data = load(tmp_path)
    assert data.classes == ("ant", "bee")
    assert sizes(data) == (8, 0, 3)
    write(tmp_path / "test" / "wasp" / "1.png")
    assert "has no folder 'train' beside 'test'" in refusal(tmp_path)


def test_a_class_train_with_folders_among_others_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"steam": 4, "diesel": 4})
    fill(tmp_path, {"bus": 4, "car": 4})
    message = refusal(tmp_path)
    assert "'train' may be the part to train on or a class beside 'bus', 'car'" in message


def test_classes_divided_into_parts(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        fill(tmp_path / name, {"Train": 4, "Test": 2})
    assert sizes(load(tmp_path)) == (8, 0, 4)
    fill(tmp_path, {"cow": 4})
    assert "divide all, or none" in refusal(tmp_path)


@pytest.mark.parametrize("inside", ["", "photos", "archive/photos"])
def test_an_archives_own_folder(tmp_path: Path, inside: str) -> None:
    fill(tmp_path / inside / "Train" / "Train", TWO)
    fill(tmp_path / inside / "Test", TWO)
    (tmp_path / "__MACOSX" / "photos").mkdir(parents=True)
    data = load(tmp_path)
    assert sizes(data) == (6, 0, 6)
    fill(tmp_path / "other" / inside / "deeper", TWO)
    assert load(tmp_path / "other").classes == ("ant", "bee")
    labels = tmp_path / "third" / inside / "labels.csv"
    fill(labels.parent, {"x": 6})
    labels.write_text("image,labels\n" + "".join(f"x/{i:03}.png,{i % 2}\n" for i in range(6)))
    (tmp_path / "fourth").mkdir()
    labels.parent.rename(tmp_path / "fourth" / "only")
    assert load(tmp_path / "fourth", test_fraction=0.1).classes == ("0", "1")


@pytest.mark.parametrize(
    "name",
    [
        *("@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", ".ipynb_checkpoints", ".Trashes"),
        *(".git", "lost+found", "System Volume Information", "Network Trash Folder"),
        *("@Recently-Snapshot", "__pycache__", ".AppleDouble", "$Recycle.Bin", ".@__thumb"),
        *("CVS", "FOUND.000", "@__thumb"),
    ],
)
def test_debris_is_passed_over_and_said(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "train", TWO)
    fill(tmp_path / "test", TWO)
    for folder in (tmp_path, tmp_path / "train", tmp_path / "train" / "ant", tmp_path / "test"):
        write(folder / name / "000.png" / "SYNOFILE_THUMB_M.png")
    data = load(tmp_path)
    assert data.classes == ("ant", "bee")
    assert sizes(data) == (6, 0, 6)
    assert f"4 files or folders of systems and programs are passed over: {name}, " in said(data)


@pytest.mark.parametrize(
    "name",
    [
        *("Thumbs.db", "desktop.ini", "._000.png", ".DS_Store", "~$x.png", "000.png~"),
        *("x.png.crdownload", "x.part", "x.tmp", ".x.png.swp", "x.bak", "ehthumbs_vista.db"),
        "000.sync-conflict-20240101-010101-ABC.png",
        *("000.png:Zone.Identifier", "000.png.icloud", "photothumb.db", "shop.url"),
    ],
)
def test_debris_beside_images(tmp_path: Path, name: str) -> None:
    fill(tmp_path, {"ant": 5, "bee": 5})
    (tmp_path / "ant" / name).write_bytes(b"nothing")
    assert sum(sizes(load(tmp_path))) == 10


def test_one_class_in_two_forms_of_unicode(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Käfer") for form in ("NFC", "NFD"))
    fill(tmp_path / "train", {decomposed: 3, "ant": 3})
    write(tmp_path / "train" / composed / "more.png")
    fill(tmp_path / "test", {composed: 2, "ant": 2})
    data = load(tmp_path)
    assert data.classes == (composed, "ant") or data.classes == ("ant", composed)
    assert sizes(data) == (7, 0, 4)


def test_the_root_in_another_form_of_unicode(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Fotos für") for form in ("NFC", "NFD"))
    fill(tmp_path / decomposed / decomposed, TWO)
    assert load(tmp_path / composed / composed).classes == ("ant", "bee")


OTHERS = ["Ant", "ANT", "a nt", "ant ", "an-t", "ant\u200b", "\u200fant", "ａｎｔ"]


@pytest.mark.parametrize("other", OTHERS)
def test_classes_that_look_alike_are_said(tmp_path: Path, other: str) -> None:
    fill(tmp_path / "train", {"ant": 3, other: 3})
    fill(tmp_path / "test", {"ant": 3, other: 3})
    assert "though they look alike" in said(load(tmp_path))


def test_a_class_of_other_case_in_test(tmp_path: Path) -> None:
    fill(tmp_path / "train", TWO)
    fill(tmp_path / "test", {"Ant": 3, "bee": 3})
    assert "no such class in train, but there is 'ant'" in refusal(tmp_path)


@pytest.mark.parametrize("part", ["val", "test"])
def test_an_empty_class_folder(tmp_path: Path, part: str) -> None:
    for name in ("train", "val", "test"):
        fill(tmp_path / name, TWO)
    for image in (tmp_path / part / "bee").iterdir():
        image.unlink()
    data = load(tmp_path)
    assert (data.val if part == "val" else data.test).targets.tolist() == [0, 0, 0]
    assert f"1 folder without an image is passed over: {part}/bee" in said(data)
    for image in (tmp_path / part / "ant").iterdir():
        image.unlink()
    assert f"{part}/ant" in said(load(tmp_path))


@pytest.mark.parametrize(
    "folders",
    [
        "photos/train more/val",
        "one/train one/test two/train two/test",
        "train/train train/test test",
    ],
)
def test_several_data_sets_are_no_classes(tmp_path: Path, folders: str) -> None:
    for folder in folders.split():
        fill(tmp_path / folder, TWO)
    assert "give the folder of one data set as data.root" in refusal(tmp_path)


def test_parts_in_a_folder_named_as_one(tmp_path: Path) -> None:
    fill(tmp_path / "train" / "train", TWO)
    fill(tmp_path / "train" / "val", TWO)
    assert sizes(load(tmp_path)) == (4, 6, 2)


def test_folders_of_the_same_classes_are_said(tmp_path: Path) -> None:
    for name in ("fold1", "fold2", "fold3"):
        fill(tmp_path / name, TWO)
    assert "are read as classes, and each has the same folders 'ant', 'bee'" in said(load(tmp_path))


def test_what_lies_beside_the_only_folder_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "photos" / "train", TWO)
    fill(tmp_path / "photos" / "Test", TWO)
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "0.xml").touch()
    (tmp_path / "test.zip").touch()
    data = load(tmp_path)
    assert sizes(data) == (6, 0, 6)
    assert "is passed over: labels" in said(data)
    assert "not read: test.zip" in said(data)


def test_label_files_of_other_names(tmp_path: Path) -> None:
    for name, count in (("Train", 6), ("dev", 2), ("TEST", 4)):
        fill(tmp_path / "photos", {name: count})
        lines = "".join(f"photos/{name}/{i:03}.png,{'ab'[i % 2]}\n" for i in range(count))
        (tmp_path / f"{name}.csv").write_text("image,labels\n" + lines)
    write(tmp_path / "photos" / "unnamed.png")
    data = load(tmp_path)
    assert sizes(data) == (6, 2, 4)
    assert "1 file or folder beside what is read is not read: photos/unnamed.png" in said(data)
    (tmp_path / "valid.csv").write_text("image,labels\n")
    assert "'dev.csv' and 'valid.csv' may each be the val part" in refusal(tmp_path)


def test_label_files_and_images_in_two_forms_of_unicode(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Käfer") for form in ("NFC", "NFD"))
    fill(tmp_path, {decomposed: 9})
    rows = [f"{composed}/{i:03}.png,{(composed, decomposed, 'x')[i % 3]}" for i in range(9)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,labels", *rows]), encoding="utf-8")
    assert load(tmp_path, test_fraction=0.2).classes == (composed, "x")


def test_a_part_that_is_empty_is_said(tmp_path: Path) -> None:
    fill(tmp_path, {"ant": 5, "bee": 5})
    (tmp_path / "val").mkdir()
    assert "1 folder without an image is passed over: val" in said(load(tmp_path))


def test_train_without_class_folders(tmp_path: Path) -> None:
    fill(tmp_path / "val", TWO)
    write(tmp_path / "train" / "1.png")
    assert "'train' holds images and no class folders, unlike 'val'" in refusal(tmp_path)
