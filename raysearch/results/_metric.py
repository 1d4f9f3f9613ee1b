"""What is measured on the test images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """What a network is judged by.

    Attributes:
        name: as in the figures' names, `test_<name>` and `val_<name>`.
        label: what a table or an axis says, with the unit: "test error in %".
        unit: "%" (values from 0 to 100) or "" (from 0 to 1).
        lower_is_better: whether a smaller value is a better network.
    """

    name: str
    label: str
    unit: str
    lower_is_better: bool
