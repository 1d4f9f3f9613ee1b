"""Policies as files: JSON of a known version, refused with one line when it is wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, NoReturn

from raysearch.errors import RaysearchError, unknown
from raysearch.files import check_regular
from raysearch.policy._base import FORMAT, VERSION, Json, Policy
from raysearch.policy._candidates import MAX_MAGNITUDE, Candidates
from raysearch.policy._checks import (
    Check,
    any_object,
    list_of,
    number,
    object_of,
    one_of,
    text,
    whole_number,
)
from raysearch.policy._compound import Compound
from raysearch.policy._mixture import Mixture
from raysearch.policy._pairs import MAX_ELEMENTS, Pairs
from raysearch.policy._random_operations import RandomOperations
from raysearch.policy._random_order import RandomOrder
from raysearch.policy._schedule import Schedule
from raysearch.policy._sub_policies import SubPolicies
from raysearch.policy._transformations import Transformations

# 5 seeds' schedules of 200 phases of 500 draws of 10 parameters are smaller; so are 50,000
# sub-policies. A file within the limits takes seconds and hundreds of megabytes at most.
MAX_BYTES = 64 * 1024 * 1024
MAX_VALUES = 8_000_000
MAX_OBJECTS = 200_000
_CLASSES: tuple[type[Policy], ...] = (
    SubPolicies,
    RandomOperations,
    Candidates,
    Pairs,
    RandomOrder,
    Transformations,
    Schedule,
    Mixture,
)
KINDS: dict[str, type[Policy]] = {cls.kind: cls for cls in _CLASSES}

_UNIT, _POSITIVE = number(0, 1), number(0)
_NAME = text(64)
_COUNT = whole_number(1, 16)
_RANGES = one_of("autoaugment", "wide")
_ANY = MAX_VALUES  # no limit but that of the file

BODIES: dict[str, Check] = {
    SubPolicies.kind: object_of(
        ranges=_RANGES,
        sub_policies=list_of(
            object_of(
                weight=_POSITIVE,
                operations=list_of(
                    object_of(name=_NAME, probability=_UNIT, magnitude=_UNIT), least=1, most=16
                ),
            ),
            least=1,
            most=_ANY,
        ),
    ),
    RandomOperations.kind: object_of(
        ranges=_RANGES,
        operations=list_of(_NAME, least=1, most=_ANY),
        count=_COUNT,
        magnitude=object_of(low=_UNIT, high=_UNIT, levels=whole_number(1, 1_000_000)),
    ),
    Candidates.kind: object_of(
        ranges=_RANGES,
        augment=_UNIT,
        count=_COUNT,
        operations=list_of(_NAME, least=1, most=10_000),
        magnitudes=list_of(number(0, MAX_MAGNITUDE), least=1, most=10_000),
        probabilities=list_of(_POSITIVE, least=1, most=10_000),
    ),
    Pairs.kind: object_of(
        ranges=_RANGES,
        operations=list_of(_NAME, least=1, most=MAX_ELEMENTS),
        magnitudes=list_of(_UNIT, least=1, most=MAX_ELEMENTS),
        probabilities=list_of(
            list_of(_POSITIVE, least=1, most=MAX_ELEMENTS), least=1, most=MAX_ELEMENTS
        ),
    ),
    RandomOrder.kind: object_of(
        ranges=_RANGES,
        counts=list_of(_POSITIVE, least=2, most=17),
        operations=list_of(_NAME, least=1, most=256),
        probabilities=list_of(_UNIT, least=1, most=256),
        magnitudes=list_of(_UNIT, least=1, most=256),
    ),
    Transformations.kind: object_of(
        names=list_of(_NAME, least=1, most=16),
        draws=list_of(None, least=1, most=1_000_000),  # whose rows its `from_body` checks
    ),
    Schedule.kind: object_of(phases=list_of(any_object, least=1, most=10_000)),
    Mixture.kind: object_of(members=list_of(any_object, least=1, most=1_000)),
}
"""What the JSON of each kind must be, apart from format, version and kind."""


def from_json(document: Any, where: str = "policy") -> Policy:
    """The policy of a JSON document.

    Args:
        document: what `json.load` returned.
        where: the file's name, for the error message.

    Raises:
        RaysearchError: not a policy, another version, an unknown kind or operation, or a value
            outside its range; the message names the place.
    """
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise RaysearchError(f'{where}: not a raysearch policy (no "format": "{FORMAT}")')
    if document.get("version") != VERSION:
        raise RaysearchError(
            f"{where}: policy version {document.get('version')!r:.50}; "
            f"this raysearch reads version {VERSION}"
        )
    body = {k: v for k, v in document.items() if k not in ("format", "version")}
    try:
        return _read(body, KINDS)
    except (ValueError, OverflowError, RaysearchError) as error:
        raise RaysearchError(f"{where}: {error}") from None


def _read(document: Json, kinds: Collection[str]) -> Policy:
    """The policy of a document or a part of one, which must be of one of `kinds`.

    Raises:
        ValueError, OverflowError, RaysearchError: something is wrong; the message names the place.
    """
    kind = document.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise unknown("policy kind", str(kind), kinds)
    cls = KINDS[kind]
    body = {k: v for k, v in document.items() if k != "kind"}
    BODIES[kind](body)
    if issubclass(cls, Compound):
        inner = [kind for kind in kinds if kind not in cls.excluded]
        body = {cls.key: [_part(cls.key, i, one, inner) for i, one in enumerate(body[cls.key])]}
    return cls.from_body(body)


def _part(key: str, index: int, document: Json, kinds: Collection[str]) -> Policy:
    try:
        return _read(document, kinds)
    except (ValueError, OverflowError, RaysearchError) as error:
        raise RaysearchError(f"{key}[{index}]: {error}") from None


def read_policy(path: str | os.PathLike[str]) -> Policy:
    """The policy in a JSON file; see `raysearch.load_policy` for the one to train with.

    Raises:
        RaysearchError: the file is missing, larger than 64 MiB, of more values than any policy
            has, not JSON or not a valid policy.
    """
    path = Path(path)
    try:
        check_regular(path)
        if path.stat().st_size > MAX_BYTES:
            raise RaysearchError(f"{path}: larger than {MAX_BYTES >> 20} MiB; not a policy")
        content = path.read_text(encoding="utf-8")
        if content.count("{") > MAX_OBJECTS or content.count(",") + content.count("[") > MAX_VALUES:
            raise RaysearchError(
                f"{path}: more than {MAX_OBJECTS:,} objects or {MAX_VALUES:,} values; not a policy"
            )
        document = json.loads(content, parse_constant=_refuse_constant)
    except OSError as error:
        raise RaysearchError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise RaysearchError(f"{path}: not valid JSON ({error})") from None
    return from_json(document, str(path))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number that JSON knows")
