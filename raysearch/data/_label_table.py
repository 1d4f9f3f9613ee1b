"""A table of images and labels: which column is what, and what the cells say."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from raysearch.data._names import nfc
from raysearch.data._notices import Notices
from raysearch.data._part_names import PARTS, name_parts, part_words
from raysearch.data._settings import DataSettings
from raysearch.data._table import Rows, read_table
from raysearch.data._tree import extensions, is_debris
from raysearch.errors import RaysearchError

_FORMS = (
    "expected, with commas, semicolons or tabs, a first line `image,labels` or "
    "`image,<class>,<class>,...`"
)
_UNREAD = "column{{s}} of {} {{are}} not read"
_YES, _NO = ("1", "1.0", "true"), ("0", "0.0", "false")  # in any case, as pandas writes them
_TRIED = 20  # about as many rows, evenly spread, tell where the images are
_FEW = 50  # different values at most, of a column that tells the parts


@dataclass(frozen=True)
class LabelTable:
    """The images and labels of a file.

    Attributes:
        path: the file's.
        folder: what the images' paths are relative to.
        ending: what they lack of the images' names, as `.jpg`; mostly nothing.
        header: names of the image column and of the label columns.
        rows: the cells of these columns, by the numbers of their lines.
        parts: of each line its part, where the file tells it; else empty.
    """

    path: Path
    folder: str
    ending: str
    header: list[str]
    rows: Rows
    parts: dict[int, str]

    @classmethod
    def read(
        cls, path: Path, part: str, settings: DataSettings, notices: Notices
    ) -> LabelTable | None:
        """The table of a part; None where it has no labels, and is not that of train.

        Raises:
            RaysearchError: it has no header, no rows, or other columns.
        """
        header, rows = _cells(path, notices)
        image, folder, ending = _find_images(path, part, header, rows, settings)
        labels, parts, how = _find_labels(path, header, rows, image, settings)
        if not labels:
            if part == "train":
                raise RaysearchError(f"{path} has another layout: {_FORMS}")
            notices.say(f"{part} is not read, as {path.name} has no column of labels")
            return None
        if not rows:
            raise RaysearchError(f"{path} names no images")
        kept = [image, *labels]
        unread = [name for place, name in enumerate(header) if name and place not in (*kept, how)]
        where = os.path.relpath(path, settings.folder())
        notices.add(_UNREAD.format(where), [repr(name) for name in unread])
        chosen = {line: [row[place] for place in kept] for line, row in rows.items()}
        table = cls(path, folder, ending, [header[place] for place in kept], chosen, parts)
        if os.path.isfile(table.file(table.header[0])):
            raise RaysearchError(f"{path} has no header, its first line names an image: {_FORMS}")
        if not parts:
            table = replace(table, parts=_parts_of_folders(table))
        return table

    @property
    def named(self) -> bool:
        """Whether one column holds names of classes, and not a column for each class 0 or 1."""
        return len(self.header) == 2

    def labels(self) -> list[set[str]]:
        """The classes of each row."""
        found: list[set[str]] = []
        for line, (_, *cells) in self.rows.items():
            if self.named:
                own = {nfc(name.strip()) for name in cells[0].split("|")} if cells[0] else set()
                if "" in own:
                    raise self.wrong(line, f"a name in {cells[0][:100]!r} is empty")
            else:
                plain = (cell.casefold() for cell in cells)
                by_class = dict(zip(self.header[1:], plain, strict=True))
                known = (*_YES, *_NO)
                odd = next((name for name, cell in by_class.items() if cell not in known), "")
                if odd:
                    cell = by_class[odd][:100]
                    raise self.wrong(
                        line,
                        f"{cell!r} in column {odd!r} is not 0 or 1; if one column holds the "
                        "classes' names, data.label_column= says which",
                    )
                own = {name for name, cell in by_class.items() if cell in _YES}
            found.append(own)
        return found

    def file(self, name: str) -> str:
        """The path of an image that a row names."""
        return _file(self.folder, name, self.ending)

    def divided(self) -> dict[str, LabelTable]:
        """The rows of each part that the file tells; all are train where it tells none."""
        if not self.parts:
            return {"train": self}
        lines = {part: [n for n in self.rows if self.parts[n] == part] for part in PARTS}
        return {
            part: replace(self, rows={line: self.rows[line] for line in own})
            for part, own in lines.items()
            if own
        }

    def wrong(self, line: int, what: str) -> RaysearchError:
        """The error of a line."""
        return RaysearchError(f"{self.path}, line {line}: {what}")


def _cells(path: Path, notices: Notices) -> tuple[list[str], Rows]:
    """The header, and rows of its length."""
    rows = read_table(path, notices)
    header = [nfc(cell) for cell in rows.pop(min(rows, default=0), [])]
    if not header:
        raise RaysearchError(f"{path} has another layout: {_FORMS}")
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise RaysearchError(f"{path}: there are two columns {twice[0]!r}")
    width = len(header)
    for line, row in rows.items():
        if len(row) < width or any(row[width:]):
            raise RaysearchError(
                f"{path}, line {line}: it has {len(row)} columns, the header {width}"
            )
    return header, rows


def _find_images(
    path: Path, part: str, header: list[str], rows: Rows, settings: DataSettings
) -> tuple[int, str, str]:
    """The column of the images' paths, the folder that they are relative to, and their ending.

    It is the first column that names files: `file_name` or what `data.image_column` says where
    there is such a one. They lie beside the file, or in a folder there.

    Raises:
        RaysearchError: they may lie in several.
    """
    given = settings.image_column
    columns = [place for place, name in enumerate(header) if name == (given or "file_name")]
    if given is not None and not columns:
        raise RaysearchError(f"{path}: there is no column {given!r} (data.image_column)")
    columns = columns or [*range(len(header))]
    some = [*rows.values()][:: max(1, len(rows) // _TRIED)]
    here = str(path.parent)
    inside = [one for one in sorted(path.parent.iterdir()) if one.is_dir()]
    folders = [here, *(str(one) for one in inside if not is_debris(one.name))]
    for ending in ("", *sorted(extensions())):
        for column in columns:
            names = [row[column] for row in some if row[column]]
            holding = [
                folder
                for folder in folders
                if any(os.path.isfile(_file(folder, name, ending)) for name in names)
            ]
            if len(holding) > 1 and here not in holding:
                of_part = [one for one in holding if _means(os.path.basename(one), part)]
                if len(of_part) != 1:
                    shown = " and ".join(os.path.basename(one) for one in holding[:3])
                    raise RaysearchError(
                        f"{path}: {names[0][:200]!r} and others may lie in {shown}: write the "
                        "folder into the paths"
                    )
                holding = of_part
            if holding:
                return column, holding[0], ending
    return columns[0], here, ""


def _means(name: str, part: str) -> bool:
    words = part_words(name)
    return words is not None and words[0] == part


def _file(folder: str, name: str, ending: str = "") -> str:
    """A file's path; a `\\` in it may separate folders, as Windows writes them."""
    path = os.path.join(folder, name + ending)
    if "\\" in name and not os.path.lexists(path):
        path = os.path.join(folder, name.replace("\\", os.sep) + ending)
    return os.path.normpath(path)


def _find_labels(
    path: Path, header: list[str], rows: Rows, image: int, settings: DataSettings
) -> tuple[list[int], dict[int, str], int | None]:
    """The columns of the labels; of each line its part, where a column tells that; this column.

    Raises:
        RaysearchError: there is no such column as `data.label_column` says.
    """
    wanted = settings.label_column
    rest = [place for place, name in enumerate(header) if place != image and name]
    labels = [place for place in rest if header[place].casefold() == nfc(wanted).casefold()]
    if not labels and wanted != DataSettings.label_column:
        raise RaysearchError(f"{path}: there is no column {wanted!r} (data.label_column)")
    parts: dict[int, str] = {}
    for place in rest if len(rest) > 1 else ():
        values = {line: row[place] for line, row in rows.items()}
        parts = {} if place in labels else _told(values, path)
        if parts:
            return labels or [one for one in rest if one != place], parts, place
    return labels or rest, parts, None


def _told(values: dict[int, str], path: Path) -> dict[int, str]:
    """Of each line the part that its value means, where all mean train or another; else empty."""
    different = set(values.values())
    if len(different) > _FEW:
        return {}
    named = name_parts(sorted(different), path)
    if named.others or not {"train"} < named.parts.keys():
        return {}
    part_of = {name: part for part, names in named.parts.items() for name in names}
    return {line: part_of[value] for line, value in values.items()}


def _parts_of_folders(table: LabelTable) -> dict[int, str]:
    """Of each line its part, where the images lie in folders of parts; else empty."""
    folders = {line: os.path.dirname(table.file(row[0])) for line, row in table.rows.items()}
    different = set(folders.values())
    above = os.path.commonpath(different)
    first = {one: os.path.relpath(one, above).split(os.sep)[0] for one in different}
    return _told({line: first[one] for line, one in folders.items()}, table.path)
