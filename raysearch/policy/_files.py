"""Policies as files: JSON of a known version, refused with one line when it is wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, NoReturn

from raysearch.errors import RaysearchError, unknown
from raysearch.files import check_regular
from raysearch.policy._adaptive import Adaptive
from raysearch.policy._base import FORMAT, VERSION, Json, Policy
from raysearch.policy._basic import Basic
from raysearch.policy._candidates import Candidates
from raysearch.policy._checks import MAX_VALUES, object_of
from raysearch.policy._compound import Compound
from raysearch.policy._mixture import Mixture
from raysearch.policy._pairs import Pairs
from raysearch.policy._random_operations import RandomOperations
from raysearch.policy._random_order import RandomOrder
from raysearch.policy._schedule import Schedule
from raysearch.policy._sequence import Sequence
from raysearch.policy._sub_policies import SubPolicies
from raysearch.policy._transformations import Transformations

# 5 seeds' schedules of 200 phases of 500 draws of 10 parameters are smaller; so are 50,000
# sub-policies. A file within the limits takes seconds and hundreds of megabytes at most.
MAX_BYTES = 64 * 1024 * 1024
MAX_OBJECTS = 200_000
KINDS: dict[str, type[Policy]] = {
    cls.kind: cls
    for cls in (
        SubPolicies,
        RandomOperations,
        Adaptive,
        Candidates,
        Pairs,
        RandomOrder,
        Transformations,
        Basic,
        Sequence,
        Schedule,
        Mixture,
    )
}


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
    return _read(body, KINDS, where)


def _read(document: Json, kinds: Collection[str], where: str) -> Policy:
    """The policy of a document or a part of one, which must be of one of `kinds`."""
    kind = document.get("kind")
    try:
        if not isinstance(kind, str) or kind not in kinds:
            raise unknown("policy kind", str(kind), kinds)
        cls = KINDS[kind]
        body = {k: v for k, v in document.items() if k != "kind"}
        object_of(**cls.fields)(body)
        if issubclass(cls, Compound):
            key, inner = cls.key, [kind for kind in kinds if kind not in cls.excluded]
            body = {key: [_read(part, inner, f"{key}[{i}]") for i, part in enumerate(body[key])]}
        return cls.from_body(body)
    except (ValueError, OverflowError, RaysearchError) as error:
        raise RaysearchError(f"{where}: {error}") from None


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
