"""Images in a folder per class, or with their labels in a CSV file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from raysearch.data._label_file import find_label_files, list_labelled
from raysearch.data._layout import EMPTY, EXPECTED, Classes, find_layout
from raysearch.data._names import check_class_names, like
from raysearch.data._notices import SKIPPED, Notices
from raysearch.data._settings import DataSettings
from raysearch.data._source import FileSource, Listing, Part
from raysearch.data._table import SUFFIXES
from raysearch.data._tree import Tree
from raysearch.errors import RaysearchError


def list_folder(settings: DataSettings, notices: Notices) -> Listing:
    """The images below `data.root`, by class.

    Where a file holds the labels (see `find_label_files`), the folders do not matter. Else
    `find_layout` says which folders are parts and which are classes, whose images lie in them at
    any depth. Classes are in alphabetical order of their names in Unicode's form NFC. Debris of
    systems and programs is passed over, see `is_debris`; of links see `Tree`.

    Args:
        settings: of the data: its folder, whether to pass over files that by their name are no
            images or that are links out of the folder, and whether to follow such links.
        notices: gains what was read as which part, and what was set aside.

    Raises:
        RaysearchError: a folder is missing or a link out of `root`, there are fewer than two
            classes, a class has no image or a name that cannot be shown, val or test has a class
            that train has not, what is a part is not clear, or (unless `skip`) a file is no image
            by its name or a link out of `root`.
    """
    root = settings.folder()
    tree = Tree(root, notices, settings.links, settings.groups_file)
    files = _label_files(settings, tree, notices)
    if files:
        return list_labelled(files, settings, notices)
    found = find_layout(root, tree, notices)
    classes = tuple(found["train"])
    if len(classes) < 2:
        names = f"only the folder {classes[0]!r}" if classes else "no folders"
        raise RaysearchError(
            f"{root} has {names}; at least two classes are needed ({EXPECTED}){_hint(root)}"
        )
    check_class_names(classes, root)
    parts: dict[str, Part] = {}
    for part, folders in found.items():
        listed = _list_part(part, folders, classes, tree, settings.skip, notices)
        if listed is not None:
            parts[part] = listed
    return Listing(classes, parts)


def _label_files(settings: DataSettings, tree: Tree, notices: Notices) -> dict[str, Path]:
    """The label files in the root, or in the folder that is all there is in it."""
    folder = str(settings.folder())
    while not (files := find_label_files(Path(folder), settings, notices)):
        only = tree.look(folder).only
        if only is None:
            break
        folder = only
    return files


def _hint(root: Path) -> str:
    """What an error adds where a file may be meant to hold the labels, or all there is."""
    tables = [path for path in sorted(root.iterdir()) if path.suffix.lower() in SUFFIXES]
    if not tables:
        return ""
    name, suffix = tables[0].name, tables[0].suffix
    if suffix == ".parquet":
        return f"; if {name} holds the images, give data=parquet"
    return (
        f"; if {name} holds the labels, name it labels{suffix}, and give data.label_column where "
        "it has several columns"
    )


def _list_part(
    part: str, folders: Classes, classes: tuple[str, ...], tree: Tree, skip: bool, notices: Notices
) -> Part | None:
    """A part's images; None where val or test has none."""
    paths: list[str] = []
    labels: list[int] = []
    for name, places in folders.items():
        images: list[str] = []
        for place in places:
            found, others = tree.walk(place)
            if others and not skip:
                raise RaysearchError(f"{others[0]} (data.on_error=skip passes over it)")
            notices.add(SKIPPED, others)
            images += found
        if not images:
            if part == "train":
                raise RaysearchError(
                    f"class {name!r}: there is no image in {places[0]}: put "
                    "some there, or remove the folder"
                )
            notices.add(EMPTY, [tree.relative(place) for place in places])
        elif name not in classes:
            raise RaysearchError(
                f"{places[0]}: there is no such class in train{like(name, classes)}"
            )
        else:
            paths += images
            labels += [classes.index(name)] * len(images)
    if not paths:
        return None
    return Part(FileSource.of(paths), np.array(labels, dtype=np.int64))
