"""What is wrong with an MLflow store, in one line that says what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator

START = "start it, correct tracking.uri, or set tracking=none"
CREDENTIALS = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
LONGEST = 300  # characters of a library's own words

_NO_ADDRESS = {
    "InvalidUrlException",
    "InvalidURL",
    "InvalidSchema",
    "UnsupportedModelRegistryStoreURIException",
}
_PROXIES = {"ProxyError", "InvalidProxyURL"}
_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+/?")
_STATUS = re.compile(r"failed with error code (\d+)|too many (\d+) error responses")
_BODY = re.compile(r"Response body: '(.*)'\s*$", re.DOTALL)
_ANSWERS = {
    401: f"asks who you are (401): set {CREDENTIALS}",
    403: f"does not let you in (403{{words}}): ask for the permission, or check {CREDENTIALS}",
    404: f"answers, but is no MLflow server (404): {START}",
    407: "is behind a proxy that asks who you are (407): correct http_proxy, or add the host to "
    "no_proxy",
    429: "has too much to do (429): try again, or set tracking=none",
    500: "has failed inside (500{words}): its log says why; mend it, or set tracking=none",
    502: "gets no further than the proxy before it (502): start the server behind it",
    503: "is not ready (503): wait for it, or set tracking=none",
    504: "gets no further than the proxy before it (504): start the server behind it",
}


def refusal(error: BaseException, uri: str) -> str:
    """Why a store could not be opened, as a sentence that begins with its address.

    Args:
        error: whatever MLflow raised.
        uri: of the store.
    """
    who, status = f"MLflow at {uri}", _status(error)
    if status in _ANSWERS:
        words = _body(error)
        return f"{who} {_ANSWERS[status].format(words=f': {words}' if words else '')}"
    if "not in a valid JSON format" in str(error):
        return f"{who} answers, but is no MLflow server (not with JSON): {START}"
    kinds = {type(each).__name__ for each in _chain(error)}
    if kinds & _PROXIES or "SOCKS support" in str(error):
        return f"{who} is not reached through the proxy: add its host to no_proxy, or {START}"
    if "SSLError" in kinds:
        return (
            f"{who} has a certificate that cannot be verified: set "
            "MLFLOW_TRACKING_SERVER_CERT_PATH to that of its authority"
        )
    wrong = re.search("Invalid SQLite|Unity Catalog|Could not parse SQLAlchemy", str(error))
    if wrong or kinds & _NO_ADDRESS or _HOST_AND_PORT.fullmatch(uri):
        return f"tracking.uri={uri} is no address: expected http://HOST:PORT or sqlite:///FILE"
    if "filesystem tracking backend" in str(error):
        return (
            f"tracking.uri={uri} is a folder of files, which this MLflow does not write to: choose "
            "sqlite:///FILE; `mlflow migrate-filestore` takes over what is in the folder"
        )
    if is_silence(error):
        return f"{who} does not answer: {START}"
    found = re.search(r"No module named '([\w.]+)'", str(error))
    if found:
        return f"{who} needs the package {found[1]}, which is not installed"
    schema = re.search(r"found version (\w+), but expected (\w+)", str(error))
    if schema:
        return (
            f"{who} has a data base of another version than this MLflow: upgrade the older of the "
            f"two; a data base, copied before, with `mlflow db upgrade {uri}`"
        )
    if uri.split(":")[0].startswith("databricks"):
        return (
            f"{who}: no access to Databricks: `databricks auth login`, or set DATABRICKS_HOST and "
            "DATABRICKS_TOKEN"
        )
    return f"{who}: {reason(error)}"


def reason(error: BaseException) -> str:
    """The error in a few words: its message's first line, without MLflow's error code."""
    if _status(error) is None and is_silence(error):
        return "no answer"
    text = str(error).strip().splitlines()
    line = text[0] if text else type(error).__name__
    head, _, tail = line.partition(": ")
    return shortened(tail if head.isupper() and tail else line)


def shortened(text: str) -> str:
    """At most `LONGEST` characters, cut between words."""
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST].rpartition(' ')[0] or text[:LONGEST]} ..."


def is_silence(error: BaseException) -> bool:
    """Whether nobody answered, as opposed to an answer that says no."""
    for seen in _chain(error):
        if isinstance(seen, OSError) and not isinstance(seen, FileNotFoundError | PermissionError):
            return True  # requests' exceptions are OSErrors too
    return "API request to" in str(error) and "failed with exception" in str(error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _status(error: BaseException) -> int | None:
    """The HTTP status with which a server has refused."""
    found = _STATUS.search(str(error))
    if found:
        return int(found[1] or found[2])
    if type(error).__name__ == "RestException" and getattr(error, "error_code", None) in (
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "CUSTOMER_UNAUTHORIZED",
    ):
        return 403 if getattr(error, "error_code", None) == "PERMISSION_DENIED" else 401
    return None


def _body(error: BaseException) -> str:
    """What a server says beside its status, where that is a short text and no page."""
    found = _BODY.search(str(error))
    text = " ".join(found[1].split()) if found else ""
    return "" if "<" in text or len(text) > LONGEST else text
