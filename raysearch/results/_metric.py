"""What is measured on the test images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """What a trained network is judged by.

    Attributes:
        name: in figures, where `test_` precedes it: "error" is `test_error`.
        unit: "%", or empty for a number in [0, 1].
        label: for people: "test error".
        lower_is_better: whether less is better.
    """

    name: str
    unit: str
    label: str
    lower_is_better: bool
