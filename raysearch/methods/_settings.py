"""What the settings of every method share: where they come from, and how they are checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self, get_args, get_origin, get_type_hints

from raysearch import ops
from raysearch.errors import RaysearchError, unknown


@dataclass(frozen=True)
class MethodSettings:
    """A method's group of the configuration; a subclass is a frozen dataclass of its settings.

    Their types are checked by their annotations: `int`, `float`, `bool`, `Literal` of words,
    `str | None`, `int | None`, `float | None`, `tuple[str, ...]` and tuples of `float`. Settings
    called `operations` are names of operations, at least `FEWEST`, each once.

    Attributes:
        name: the method's name.
    """

    FEWEST: ClassVar[int] = 2
    name: str

    def __post_init__(self) -> None:
        for key, kind in _kinds(type(self)).items():
            _check(key, getattr(self, key), kind)
        names = getattr(self, "operations", ())
        if "operations" in _kinds(type(self)) and not self.FEWEST <= len(names) == len(set(names)):
            least = ("one", "two")[self.FEWEST - 1]
            raise _wrong("operations", names, f"{least} or more, each once")
        for key, fine, expected in self.conditions():
            if not fine:
                raise _wrong(key, getattr(self, key), expected)

    def conditions(self) -> Iterable[tuple[str, bool, str]]:
        """What must hold once the types do: settings, whether theirs are fine, what is expected."""
        return ()

    @classmethod
    def of(cls, method: Mapping[str, Any]) -> Self:
        """From the configuration group.

        Raises:
            RaysearchError: a key that does not belong, one that is missing, or a wrong value.
        """
        kinds = _kinds(cls)
        extra = sorted(set(method) - set(kinds))
        missing = sorted(set(kinds) - set(method))
        name = method.get("name", cls.__name__)
        if extra:
            raise unknown(f"setting of method {name}", extra[0], kinds)
        if missing:
            raise RaysearchError(f"method {name} needs method.{missing[0]}")
        values = {}
        for key, kind in kinds.items():
            values[key] = value = method[key]
            if get_origin(kind) is tuple:
                if isinstance(value, str) or not isinstance(value, Sequence):
                    raise _wrong(key, value, "a list")
                values[key] = tuple(value)
        return cls(**values)


@dataclass(frozen=True)
class RewardSettings(MethodSettings):
    """Settings of the methods that move a policy over operations by per-image rewards.

    Attributes:
        operations: names of the operations that are searched, two or more.
        sampling: a choice per `image`, or choices for the whole `batch` as the papers' code has it.
        lr: Adam's learning rate for the policy's logits.
        betas: Adam's decay rates.
        prior_strength: T ≥ 0; see the methods' texts.
        difference: `forward` or `central` differences along v; `auto` is forward on the CPU and
            central on a GPU, where a forward difference is no cheaper.
        epsilon: length of the step along v, in weight space.
        warmup: share of the search's epochs, in [0, 1), that train with the starting policy
            before the policy begins to move; they cost one epoch-equivalent each.
    """

    operations: tuple[str, ...]
    sampling: Literal["image", "batch"]
    lr: float
    betas: tuple[float, float]
    prior_strength: float
    difference: Literal["auto", "forward", "central"]
    epsilon: float
    warmup: float

    def conditions(self) -> Iterable[tuple[str, bool, str]]:
        """The values that each number may take."""
        return (
            ("lr", self.lr > 0, "a number above 0"),
            ("betas", all(0 <= beta < 1 for beta in self.betas), "from 0 to below 1"),
            ("prior_strength", self.prior_strength >= 0, "at least 0"),
            ("epsilon", self.epsilon > 0, "a number above 0"),
            ("warmup", 0 <= self.warmup < 1, "from 0 to below 1"),
        )


def _kinds(cls: type[MethodSettings]) -> dict[str, Any]:
    """The type of each setting."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def _check(key: str, value: Any, kind: Any) -> None:
    """Raise unless the value is of its kind."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise unknown(f"method.{key}", str(value), get_args(kind))
    elif get_origin(kind) is tuple:
        _check_items(key, value, get_args(kind))
    elif kind == (str | None) and not isinstance(value, str | None):
        raise _wrong(key, value, "a path or nothing")
    elif kind in (int | None, float | None):
        if value is not None:
            _check(key, value, get_args(kind)[0])
    elif kind is bool and not isinstance(value, bool):
        raise _wrong(key, value, "true or false")
    elif kind is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise _wrong(key, value, "a whole number")
    elif kind is float and not _is_number(value):
        raise _wrong(key, value, "a number")


def _check_items(key: str, value: tuple[Any, ...], kinds: tuple[Any, ...]) -> None:
    if kinds[0] is str:
        what = "names of operations" if key == "operations" else "names"
        for item in value:
            if not isinstance(item, str):
                raise _wrong(key, item, what)
            if key == "operations":
                ops.operation_id(item)
    elif not all(_is_number(item) for item in value):
        raise _wrong(key, value, "numbers" if ... in kinds else "two numbers")
    elif ... not in kinds and len(value) != len(kinds):
        raise _wrong(key, value, "two numbers")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _wrong(key: str, value: object, expected: str) -> RaysearchError:
    return RaysearchError(f"method.{key}={value!r}: expected {expected}")
