"""Which folders are parts of a data set and which are classes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from raysearch.data._names import nfc
from raysearch.data._notices import Notices
from raysearch.data._part_names import PARTS, NamedParts, name_parts, part_words
from raysearch.data._tree import Tree
from raysearch.errors import RaysearchError

EXPECTED = (
    "expected DIR/train/<class>/<image> (and DIR/val, DIR/test likewise), DIR/<class>/<image> or "
    "DIR/labels.csv"
)
_ONE_SET = "give the folder of one data set as data.root, or put each class into DIR/<part>/<class>"
NOT_READ = "file{s} or folder{s} beside what is read {are} not read"
UNLABELLED = "folder{s} named as a part {are} not read, for want of class folders in {them}"
AS_CLASS = "folder{s} named as a part {are} read as a class, with images and no folders in {them}"
EMPTY = "folder{s} without an image {are} passed over"
Classes = dict[str, list[str]]  # by name, in NFC: the folders that a class has
_DOCUMENTS = (
    *(".md", ".txt", ".rst", ".pdf", ".html", ".log"),
    *(".json", ".yaml", ".yml", ".toml", ".cfg", ".py", ".sh"),
)


def find_layout(root: Path, tree: Tree, notices: Notices) -> dict[str, Classes]:
    """The class folders of each part; train always is there.

    Parts are told from classes by their names, see `name_parts`, and by what they hold: folders. It
    may be

    - `root/<part>/<class>`;
    - `root/<class>`, all of which is train, and with it `root/<part>/<class>` of the same classes;
    - `root/<class>/<part>`.

    A folder that is the only one and holds only folders is gone into: archives unpack so. Names are
    compared in Unicode's form NFC.

    Args:
        root: the data set's folder.
        tree: what lies there.
        notices: gains what was read as which part, and what was not read.

    Raises:
        RaysearchError: it is none of these, or may be several.
    """
    home = _home(str(root), tree, notices)
    named = name_parts(_names(tree.look(home).folders), home)
    folders, classes = _tell_apart(home, named, tree, notices)
    if not folders:
        found = _by_class(home, classes, tree)
        _say_alike_inside(found["train"], tree, notices)
        read = [os.path.join(home, name) for name in classes]
    else:
        opened = {part: _opened_part(path, tree, notices) for part, path in folders.items()}
        found = {part: _classes(tree.look(path).folders) for part, path in opened.items()}
        read = list(folders.values())
        for path in opened.values():
            if _has_parts(path, tree):
                raise RaysearchError(f"{path} holds parts of its own: {_ONE_SET}")
            _say_beside(path, tree.look(path).folders, tree, notices)
        if "train" not in folders:  # the classes beside the parts
            found["train"] = _classes(os.path.join(home, name) for name in classes)
            read += [path for paths in found["train"].values() for path in paths]
            opened["train"] = home
        _say_where(opened, root, notices)
    if home != str(root):
        notices.say(f"what is read lies in {tree.relative(home)}")
    unlabelled = [os.path.join(home, name) for name in named.names]
    _say_beside(home, [*read, *unlabelled], tree, notices)
    return {part: found[part] for part in PARTS if part in found}


def _tell_apart(
    home: str, named: NamedParts, tree: Tree, notices: Notices
) -> tuple[dict[str, str], list[str]]:
    """The folder of each part, none where there are only classes; and the classes beside them."""
    flat, nested = NamedParts(), NamedParts()  # those that hold images only, and those with folders
    for part, names in named.parts.items():
        for name in names:
            level = tree.look(os.path.join(home, name))
            if level.folders or level.images:
                kind = nested if level.folders else flat
                kind.parts.setdefault(part, []).append(name)
            else:
                notices.add(EMPTY, name)
    if "train" in nested.parts:
        _check_no_class(home, nested, named.others, tree)
        notices.add(UNLABELLED, flat.names)
        return _paths(home, nested), []
    if not nested.parts:
        return {}, [*named.others, *_flat_classes(home, flat, named.others, notices)]
    parts = _paths(home, nested)
    inside = {name for path in parts.values() for name in _classes(tree.look(path).folders)}
    if not flat.parts and inside and inside <= {nfc(name) for name in named.others}:
        return parts, named.others
    shown = " and ".join(map(repr, nested.names))
    if "train" in flat.parts:
        raise RaysearchError(
            f"{home}: {flat.parts['train'][0]!r} holds images and no class folders, unlike {shown} "
            f"({EXPECTED})"
        )
    raise RaysearchError(
        f"{home} has no folder 'train' beside {shown}, named as a part and with folders in it; if "
        f"that is a class, put all classes into DIR/train ({EXPECTED})"
    )


def _check_no_class(home: str, nested: NamedParts, others: list[str], tree: Tree) -> None:
    """Raises RaysearchError where the folder `train` may be a class of that name among others."""
    [name, *_] = nested.parts["train"]
    beside = [other for other in others if tree.has_images(os.path.join(home, other))]
    images_too = bool(tree.look(os.path.join(home, name)).images)
    if len(nested.parts) == 1 and (len(beside) > 1 or (beside and images_too)):
        shown = ", ".join(repr(other) for other in beside[:3])
        raise RaysearchError(
            f"{home}: {name!r} may be the part to train on or a class beside {shown}: move those "
            "elsewhere if it is the part, or put all classes into DIR/train"
        )


def _flat_classes(home: str, flat: NamedParts, others: list[str], notices: Notices) -> list[str]:
    """The folders that are named as a part and are classes: images lie in them, no folders.

    Raises:
        RaysearchError: they may be parts.
    """
    names, shown = flat.names, " and ".join(map(repr, flat.names))
    if len(flat.parts) > 1:
        raise RaysearchError(
            f"{home}: {shown} are named as parts, but hold images and no class folders: put each "
            f"class's into a folder, or name all by what they show ({EXPECTED})"
        )
    if len(flat.parts.get("test", [])) == 1 and others:
        raise RaysearchError(
            f"{home}: {shown} may be a class, or images to test on whose classes nobody knows: "
            "put all classes into DIR/train if it is one, or move it elsewhere"
        )
    if names and len(names) + len(others) > 1:
        notices.add(AS_CLASS, names)
    return names


def _paths(home: str, named: NamedParts) -> dict[str, str]:
    return {part: os.path.join(home, name) for part, name in named.one_each(home).items()}


def _by_class(home: str, names: list[str], tree: Tree) -> dict[str, Classes]:
    """Classes, which may be divided into parts, all of them alike."""
    classes = _classes(os.path.join(home, name) for name in sorted(names))
    found: dict[str, Classes] = {}
    whole: list[str] = []
    for name, paths in classes.items():
        for path in paths:
            level = tree.look(path)
            inside = name_parts(_names(level.folders), path)
            if any(tree.look(os.path.join(path, name)).folders for name in inside.names):
                raise RaysearchError(f"{path} is no class, as it holds parts: {_ONE_SET}")
            if level.images or inside.others or not {"train"} < inside.parts.keys():
                whole.append(path)
                continue
            for part, folder in _paths(path, inside).items():
                found.setdefault(part, {}).setdefault(name, []).append(folder)
    if found and whole:
        raise RaysearchError(
            f"{home}: some classes have folders for train and other parts, {whole[0]} has not: "
            f"divide all, or none ({EXPECTED})"
        )
    return found or {"train": classes}


def _say_alike_inside(classes: Classes, tree: Tree, notices: Notices) -> None:
    """Say that what is read as classes may be parts or folds that each have the classes."""
    levels = [tree.look(path) for paths in classes.values() for path in paths]
    names = sorted(_names(levels[0].folders)) if levels else []
    alike = all(sorted(_names(level.folders)) == names and not level.images for level in levels)
    if alike and len(levels) > 1 and len(names) > 1:
        outer, inner = (", ".join(map(repr, some[:2])) for some in ([*classes], names))
        notices.say(
            f"the folders {outer}, ... are read as classes, and each has the same folders {inner}, "
            "... in it: if those are the classes, name the outer ones train, val and test"
        )


def _home(folder: str, tree: Tree, notices: Notices) -> str:
    """The folder, or what is found by going into the only one that it holds, again and again.

    One that has parts in it is the only one if no other holds an image.
    """
    level = tree.look(folder)
    only = level.only
    divided = [path for path in level.folders if _has_parts(path, tree)]
    if only is None and not level.images and len(divided) == 1:
        others = (path for path in level.folders if path not in divided)
        only = None if any(map(tree.has_images, others)) else divided[0]
    if only is None:
        return folder
    inner = tree.look(only)
    is_part = part_words(os.path.basename(only)) and not _has_parts(only, tree)
    if is_part or inner.images or not inner.folders:
        return folder
    _say_beside(folder, [only], tree, notices)
    return _home(only, tree, notices)


def _has_parts(folder: str, tree: Tree) -> bool:
    """Whether there are folders of train and of other parts in it, with folders in them."""
    nested = [path for path in tree.look(folder).folders if tree.look(path).folders]
    return {"train"} < name_parts(_names(nested), folder).parts.keys()


def _opened_part(folder: str, tree: Tree, notices: Notices) -> str:
    """A part's folder, or the one in it that has its name or is all there is, and has classes."""
    only = tree.look(folder).only
    if only is None:
        return folder
    inner = tree.look(only)
    again = os.path.basename(only).lower() == os.path.basename(folder).lower()
    if inner.folders and not inner.images and (again or len(inner.folders) > 1):
        _say_beside(folder, [only], tree, notices)
        return _opened_part(only, tree, notices)
    return folder


def _classes(folders: Iterable[str]) -> Classes:
    """Folders by their names in NFC: one class may have a folder in each of two forms."""
    classes: Classes = {}
    for folder in folders:
        classes.setdefault(nfc(os.path.basename(folder)), []).append(folder)
    return dict(sorted(classes.items()))


def _names(folders: list[str]) -> list[str]:
    return [os.path.basename(folder) for folder in folders]


def _say_where(opened: dict[str, str], root: Path, notices: Notices) -> None:
    where = {part: os.path.relpath(opened[part], root) for part in PARTS if part in opened}
    if any(part != path for part, path in where.items()):
        where = {part: "the folders beside" if at == "." else at for part, at in where.items()}
        notices.say("; ".join(f"{part} is read from {at}" for part, at in where.items()))


def _say_beside(home: str, read: list[str], tree: Tree, notices: Notices) -> None:
    level = tree.look(home)
    beside = [folder for folder in level.folders if folder not in read]
    notices.add(EMPTY, [tree.relative(one) for one in beside if not tree.has_images(one)])
    files = [path for path in level.others if not is_document(path)]
    beside = [one for one in beside if tree.has_images(one)]
    notices.add(NOT_READ, [tree.relative(path) for path in [*beside, *level.images, *files]])


def is_document(path: str | Path) -> bool:
    """Whether a file by its name describes data and is none."""
    return os.path.splitext(path)[1].lower() in _DOCUMENTS
