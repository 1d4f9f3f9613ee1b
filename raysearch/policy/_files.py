"""Policies as files: JSON under a versioned schema, refused with one line when it is wrong."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NoReturn

from jsonschema import Draft202012Validator, ValidationError, validators

from raysearch.errors import RaysearchError, unknown
from raysearch.files import check_regular
from raysearch.policy._base import FORMAT, VERSION, Json, Policy
from raysearch.policy._candidates import MAX_MAGNITUDE, Candidates
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

_UNIT = {"type": "number", "minimum": 0, "maximum": 1}
_NAME = {"type": "string", "maxLength": 64}
_COUNT = {"type": "integer", "minimum": 1, "maximum": 16}
_RANGES = {"enum": ["autoaugment", "wide"]}


def _object(**properties: Any) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _list(items: Json, most: int) -> Json:
    return {"type": "array", "minItems": 1, "maxItems": most, "items": items}


SCHEMAS: dict[str, Json] = {
    SubPolicies.kind: _object(
        ranges=_RANGES,
        sub_policies={
            "type": "array",
            "minItems": 1,
            "items": _object(
                weight={"type": "number", "minimum": 0},
                operations={
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 16,
                    "items": _object(name=_NAME, probability=_UNIT, magnitude=_UNIT),
                },
            ),
        },
    ),
    RandomOperations.kind: _object(
        ranges=_RANGES,
        operations={"type": "array", "minItems": 1, "items": _NAME},
        count=_COUNT,
        magnitude=_object(
            low=_UNIT, high=_UNIT, levels={"type": "integer", "minimum": 1, "maximum": 1_000_000}
        ),
    ),
    Candidates.kind: _object(
        ranges=_RANGES,
        augment=_UNIT,
        count=_COUNT,
        operations=_list(_NAME, 10_000),
        magnitudes=_list({"type": "number", "minimum": 0, "maximum": MAX_MAGNITUDE}, 10_000),
        probabilities=_list({"type": "number", "minimum": 0}, 10_000),
    ),
    Pairs.kind: _object(
        ranges=_RANGES,
        operations=_list(_NAME, MAX_ELEMENTS),
        magnitudes=_list(_UNIT, MAX_ELEMENTS),
        probabilities=_list(_list({"type": "number", "minimum": 0}, MAX_ELEMENTS), MAX_ELEMENTS),
    ),
    RandomOrder.kind: _object(
        ranges=_RANGES,
        counts={**_list({"type": "number", "minimum": 0}, 17), "minItems": 2},
        operations=_list(_NAME, 256),
        probabilities=_list(_UNIT, 256),
        magnitudes=_list(_UNIT, 256),
    ),
    Transformations.kind: _object(
        names=_list(_NAME, 16),
        draws={"type": "array", "minItems": 1, "maxItems": 1_000_000},  # see its `from_body`
    ),
    Schedule.kind: _object(phases=_list({"type": "object"}, 10_000)),
    Mixture.kind: _object(members=_list({"type": "object"}, 1_000)),
}


def _items(
    validator: Draft202012Validator, items: Json, instance: Any, schema: Json
) -> Iterator[ValidationError]:
    """JSON Schema's `items`, fifty times as fast for numbers, of which there may be millions."""
    if items.get("type") != "number" or not isinstance(instance, list):
        yield from Draft202012Validator.VALIDATORS["items"](validator, items, instance, schema)
        return
    low, high = items.get("minimum", -math.inf), items.get("maximum", math.inf)
    for index, value in enumerate(instance):
        if type(value) not in (int, float) or not low <= value <= high:
            yield from validator.descend(value, items, path=index)


_Validator = validators.extend(
    Draft202012Validator,
    {"items": _items},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: type(value) is int
    ),
)


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
    error = next(_Validator(SCHEMAS[kind]).iter_errors(body), None)
    if error is not None:
        place = error.json_path.removeprefix("$").removeprefix(".") or "document"
        raise RaysearchError(f"{place}: {error.message[:200]}")
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
        text = path.read_text(encoding="utf-8")
        if text.count("{") > MAX_OBJECTS or text.count(",") + text.count("[") > MAX_VALUES:
            raise RaysearchError(
                f"{path}: more than {MAX_OBJECTS:,} objects or {MAX_VALUES:,} values; not a policy"
            )
        document = json.loads(text, parse_constant=_refuse_constant)
    except OSError as error:
        raise RaysearchError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise RaysearchError(f"{path}: not valid JSON ({error})") from None
    return from_json(document, str(path))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number that JSON knows")
