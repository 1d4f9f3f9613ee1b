"""What an experiment has found, as objects."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console

from raysearch import results
from raysearch.errors import RaysearchError

if TYPE_CHECKING:
    from raysearch.policy import Policy
    from raysearch.results import Measured

TABLE = "table.csv"
COSTS = ["trainings_bought", "total_trainings", "on_front"]  # in plain trainings


class Result:
    """What an experiment has found.

    Args:
        folder: where everything is, `report.html` first.
        measured: all that was measured.
        summary: its figures, as `summary.json` holds them.
        failed: why methods could not go on, by their names.

    Attributes:
        folder, summary, failed: see there.
    """

    def __init__(
        self,
        folder: Path,
        measured: Measured,
        summary: Mapping[str, Any],
        failed: Mapping[str, RaysearchError] | None = None,
    ) -> None:
        self.folder, self.summary, self.failed = folder, summary, dict(failed or {})
        self._measured = measured

    @property
    def policies(self) -> dict[str, Policy]:
        """The policy that each method hands over, by its name."""
        return {name: method.policy for name, method in self._measured.methods.items()}

    @property
    def policy(self) -> Policy:
        """The policy of the only method, or of the one that was best on the test images."""
        found = self.policies
        if len(found) == 1:
            return next(iter(found.values()))
        sign = 1 if self.summary["metric"]["lower_is_better"] else -1
        means: dict[str, float] = {}
        for name, method in self._measured.methods.items():
            mean = self.summary["errors"].get(method.row, {}).get("mean")
            if mean is not None:
                means[name] = sign * mean
        if not means:
            raise RaysearchError("no method has been evaluated: see .policies")
        return found[min(means, key=lambda name: means[name])]

    @property
    def table(self) -> pd.DataFrame:
        """A row for each policy: the metric over seeds, costs, and differences from baselines.

        These are the columns that are read first; `table.csv` in the folder has them all.
        """
        table = pd.read_csv(self.folder / TABLE, index_col=0)
        metric = f"test_{self.summary['metric']['name']}"
        others = [f"minus_{name}" for name in results.references(self.summary)]
        return table[["label", metric, f"{metric}_std", "seeds", *COSTS, *others]]

    @property
    def frame(self) -> pd.DataFrame:
        """A row for each trial, as in `trials.parquet`."""
        return self._measured.trials

    @property
    def history(self) -> pd.DataFrame:
        """A row for each trial and epoch, as in `history.parquet`."""
        return self._measured.history

    @property
    def figures(self) -> dict[str, Path]:
        """The pictures of the page, PNG files by name."""
        files = [*self.folder.glob("*.png"), *(self.folder / "pictures").glob("*.png")]
        return {path.stem: path for path in sorted(files)}

    def __repr__(self) -> str:
        console = Console(file=io.StringIO(), width=100, record=True, force_jupyter=False)
        results.show(console, self.summary)
        return console.export_text()

    def _repr_html_(self) -> str:
        """The table and the policy's picture, in a notebook."""
        parts = [results.html_table(self.summary)]
        if (picture := self.figures.get("policy")) is not None:
            data = base64.b64encode(picture.read_bytes()).decode()
            parts.append(f'<img alt="policy" src="data:image/png;base64,{data}">')
        parts.append(f"<p>report: <code>{html.escape(str(self.folder / 'report.html'))}</code></p>")
        return "".join(parts)


def read_result(folder: Path) -> Result:
    """The result of an experiment that has been carried out, from its folder.

    Raises:
        RaysearchError: it cannot be read.
    """
    measured = results.read(folder)
    return Result(folder, measured, results.summarise(measured))
