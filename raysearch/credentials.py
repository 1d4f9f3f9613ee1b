"""User names, passwords and tokens in URLs, which belong in no file, log or message."""

from __future__ import annotations

import re

NO_CREDENTIALS = (
    "a user name or password would be kept in the run's files; leave it out, and set "
    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or the variables of the service"
)

# A password that nobody has percent-encoded may hold anything, so one goes up to the last @; a user
# name alone up to a slash. Azure's container@account is neither.
_USER = re.compile(
    r"(?<!abfs://)(?<!abfss://)(?<!wasb://)(?<!wasbs://)(?<=://)"
    r"(?:[^\s/:@]*:(?!\d+(?:/|$))\S*@|[^\s/@]+@)"
)
_PARAMETER = re.compile(
    r"([?&;][^=&;#\s]*(?:passw|pwd|token|secret|key)[^=&;#\s]*=)[^&;#\s]+", re.IGNORECASE
)


def redacted(text: str) -> str:
    """`text`, in whose URLs stars stand for user names, passwords and the like.

    >>> redacted("MLflow at http://ann:s3cret@host:5000 does not answer")
    'MLflow at http://***@host:5000 does not answer'
    >>> redacted("postgresql://host/runs?user=ann&password=s3cret"), redacted("sqlite:///a@b.db")
    ('postgresql://host/runs?user=ann&password=***', 'sqlite:///a@b.db')
    """
    return _PARAMETER.sub(r"\1***", _USER.sub("***@", text))
