"""Words that the command line says in several places."""

from __future__ import annotations


def plural(count: int, what: str) -> str:
    """A number of things, in words.

    >>> plural(1, "trial"), plural(0, "epoch")
    ('1 trial', '0 epochs')
    """
    return f"{count} {what}" + ("s" if count != 1 else "")
