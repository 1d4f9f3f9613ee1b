"""The settings of a data set, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, PlainValidator

from raysearch.data._names import OnDisk
from raysearch.errors import RaysearchError, unknown
from raysearch.settings import Between, Count, PathWord, WholeNumber, Word, checked

NAMES = ("digits", "folder", "parquet", "cifar10", "cifar100", "svhn")
AUTO: Final = "auto"  # data.size and data.range, chosen for the images and the machine


def _known(name: str) -> str:
    if name not in NAMES:
        raise unknown("data set", name, NAMES)
    return name


def _size(size: Any) -> Any:
    sides = size if isinstance(size, tuple) else (size, size)
    whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    if size in (None, AUTO) or (whole and len(sides) == 2 and min(sides) > 0):
        return size
    raise ValueError("expected a number of pixels, [height, width] or auto")


def _range(given: Any) -> Any:
    numbers = isinstance(given, tuple | list) and all(
        isinstance(each, int | float) and math.isfinite(each) for each in given
    )
    if given == AUTO or (numbers and len(given) == 2 and given[0] < given[1]):
        return given
    raise ValueError("expected [low, high], the values that become black and white, or auto")


@dataclass(frozen=True)
class DataSettings:
    """What can be given under `data:`; each is explained in `configs/data/*.yaml`."""

    name: Annotated[str, AfterValidator(_known)]
    root: PathWord | None = None
    limit: Count | None = None
    val_limit: Count | None = None
    test_limit: Count | None = None
    size: Annotated[int | tuple[int, int] | str | None, PlainValidator(_size)] = None
    range: Annotated[tuple[float, float] | Literal["auto"], PlainValidator(_range)] = AUTO
    test_fraction: Between | None = None
    split_seed: WholeNumber = 0
    memory_limit_mb: WholeNumber = 4096
    workers: WholeNumber | None = None
    on_error: Literal["error", "skip"] = "error"
    links: Literal["inside", "anywhere"] = "inside"
    duplicates: Literal["warn", "error", "drop"] = "warn"
    groups: Word | None = None
    image_column: Word | None = None
    label_column: Word = "label"
    predefined: Mapping[str, Any] | None = None  # the basic augmentation; read by the training

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> DataSettings:
        """The settings in a plain mapping; values of None count as not given.

        Raises:
            RaysearchError: a key that does not belong, or a wrong value.
        """
        given = {key: value for key, value in settings.items() if value is not None}
        if "name" not in given:
            raise RaysearchError(f"data.name is missing (known: {', '.join(NAMES)})")
        return checked(cls, "data", given)

    @property
    def height_width(self) -> tuple[int, int] | None:
        """The wanted size in pixels, where one was given."""
        if isinstance(self.size, int):
            return (self.size, self.size)
        return self.size if isinstance(self.size, tuple) else None

    @property
    def black_and_white(self) -> tuple[float, float] | None:
        """The values that become black and white, where they were given."""
        return None if self.range == AUTO else self.range

    @property
    def skip(self) -> bool:
        """Whether images that cannot be read are passed over."""
        return self.on_error == "skip"

    @property
    def groups_file(self) -> Path | None:
        """The CSV file that `groups` names, if it names one."""
        if self.groups is None or not self.groups.lower().endswith(".csv"):
            return None
        return self.folder() / Path(self.groups).expanduser()

    def folder(self) -> Path:
        """`data.root` as an absolute path: a stream is also read where the directory differs.

        Raises:
            RaysearchError: it is not given.
        """
        if self.root is None:
            raise RaysearchError(f"data={self.name} needs data.root=DIR, the folder of the images")
        return Path(OnDisk().find(str(Path(str(self.root)).expanduser().absolute())))
