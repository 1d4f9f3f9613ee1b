"""MLflow's own variables of the environment, where settings leave the choice to them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from raysearch.credentials import NO_CREDENTIALS, redacted
from raysearch.errors import RaysearchError

URI, NAME, ID = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"
USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"


def settled(tracking: Mapping[str, Any], experiment: str) -> dict[str, Any]:
    """The `tracking` group with what it leaves open: from the environment, else the default.

    A user name and password in the server's address go where MLflow looks for them, and not into
    the settings, which are stored.

    Args:
        tracking: the group's values.
        experiment: its name where nothing says another.

    Raises:
        RaysearchError: the address has a password that would be stored.
    """
    found = dict(tracking)
    if found["uri"] is None and (uri := _variable(URI)):
        found["uri"] = kept = _without_credentials(uri)
        if redacted(kept) != kept:
            raise RaysearchError(f"{URI}={uri}: {NO_CREDENTIALS}")
    if found["experiment"] is None:
        found["experiment"] = _experiment() or experiment
    return found


def chosen(uri: str | None, experiment: str) -> str | None:
    """Which of MLflow's variables have chosen, in a line; None: none of them."""
    given = _variable(URI)
    words = []
    if uri is not None and given and uri == _without_credentials(given):
        words.append(f"MLflow is at {uri} ({URI})")
    if experiment == _experiment():
        which = NAME if _variable(NAME) else ID
        words.append(f"MLflow's experiment is {experiment} ({which})")
    return "; ".join(words) or None


def _variable(name: str) -> str:
    """What the environment says, without the line break that a file or a secret ends with."""
    return os.environ.get(name, "").strip()


def _experiment() -> str | None:
    if name := _variable(NAME):
        return name
    number = _variable(ID)
    return f"id:{number}" if number else None  # as `Store` takes it


def _without_credentials(uri: str) -> str:
    try:
        parts = urlsplit(uri)
        if parts.scheme not in ("http", "https") or parts.username is None:
            return uri
    except ValueError:  # no URL
        return uri
    os.environ.setdefault(USER, unquote(parts.username))
    os.environ.setdefault(PASSWORD, unquote(parts.password or ""))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
