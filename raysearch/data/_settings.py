"""The settings of a data set, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeGuard

from raysearch.errors import RaysearchError, unknown

NAMES = ("digits", "folder", "parquet", "cifar10", "cifar100", "svhn")
AUTO = "auto"  # data.size, chosen for the device and the number of images


@dataclass(frozen=True)
class DataSettings:
    """What can be given under `data:`; each is explained in `configs/data/*.yaml`.

    Raises:
        RaysearchError: a value is of the wrong kind or out of range.
    """

    name: str
    root: str | None = None
    limit: int | None = None
    val_limit: int | None = None
    test_limit: int | None = None
    size: int | tuple[int, int] | str | None = None  # a string is "auto"
    test_fraction: float | None = None
    split_seed: int = 0
    memory_limit_mb: int = 4096
    workers: int | None = None
    on_error: str = "error"
    links: str = "inside"
    image_column: str | None = None
    label_column: str = "label"
    predefined: Mapping[str, Any] | None = None  # the basic augmentation; read by the training

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> DataSettings:
        """The settings in a plain mapping; values of None count as not given."""
        known = [field.name for field in fields(cls)]
        for key in settings:
            if key not in known:
                raise unknown("setting", f"data.{key}", [f"data.{name}" for name in known])
        given = {key: value for key, value in settings.items() if value is not None}
        if "name" not in given:
            raise RaysearchError(f"data.name is missing (known: {', '.join(NAMES)})")
        if isinstance(given.get("size"), Sequence) and not isinstance(given["size"], str):
            given["size"] = tuple(given["size"])
        return cls(**given)

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise unknown("data set", str(self.name), NAMES)
        for key in ("limit", "val_limit", "test_limit"):
            self._integer(key, 1)
        self._integer("workers", 0)
        self._integer("memory_limit_mb", 0)
        self._integer("split_seed", 0)
        sides = self.size if isinstance(self.size, tuple) else (self.size, self.size)
        if self.size not in (None, AUTO) and (
            len(sides) != 2 or not all(_is_integer(side) and side > 0 for side in sides)
        ):
            raise RaysearchError(
                f"data.size must be a number of pixels, [height, width] or auto, not {self.size}"
            )
        if self.test_fraction is not None and (
            not isinstance(self.test_fraction, float) or not 0.0 < self.test_fraction < 1.0
        ):
            raise RaysearchError(
                f"data.test_fraction must lie between 0 and 1, not {self.test_fraction}"
            )
        if self.on_error not in ("error", "skip"):
            raise unknown("choice for data.on_error", str(self.on_error), ("error", "skip"))
        if self.links not in ("inside", "anywhere"):
            raise unknown("choice for data.links", str(self.links), ("inside", "anywhere"))

    def _integer(self, key: str, least: int) -> None:
        value = getattr(self, key)
        if value is not None and not (_is_integer(value) and value >= least):
            raise RaysearchError(
                f"data.{key} must be a whole number of at least {least}, not {value}"
            )

    @property
    def height_width(self) -> tuple[int, int] | None:
        """The wanted size in pixels, where one was given."""
        if isinstance(self.size, int):
            return (self.size, self.size)
        return self.size if isinstance(self.size, tuple) else None

    def folder(self) -> Path:
        """`data.root` as an absolute path: a stream is also read where the directory differs.

        Raises:
            RaysearchError: it is not given.
        """
        if self.root is None:
            raise RaysearchError(f"data={self.name} needs data.root=DIR, the folder of the images")
        return Path(str(self.root)).expanduser().absolute()


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
