"""What a search returns: a way to augment images at random, as a value and as a file."""

from __future__ import annotations

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn, ParamSpec, TypeVar

import torch
from torch import Tensor

from raysearch.errors import RaysearchError, not_installed
from raysearch.files import write_whole
from raysearch.ops import check_images
from raysearch.policy._checks import Check
from raysearch.policy._levels import check_levels

Json = dict[str, Any]
P = ParamSpec("P")
T = TypeVar("T")

FORMAT = "raysearch-policy"
VERSION = 1

_NUMBERS = re.compile(r"\[[-+.e\d\s,]+\]")  # a list of nothing but numbers


def source(generator: torch.Generator | None) -> torch.device:
    """Where numbers from `generator` live."""
    return torch.device("cpu") if generator is None else generator.device


def uniform(*shape: int, generator: torch.Generator | None) -> Tensor:
    """Numbers from U(0, 1), float32, whatever PyTorch's default type and device are."""
    device = source(generator)
    return torch.rand(shape, dtype=torch.float32, device=device, generator=generator)


def outside_graphs(function: Callable[P, T]) -> Callable[P, T]:
    """The function, which `torch.compile` leaves out of its graphs and calls as it is.

    A policy's draws cannot be part of a graph: they differ from call to call, and NumPy and threads
    of their own carry them out on the CPU.
    """
    reason = "a policy draws anew in every call"
    left_out: Callable[P, T] = torch.compiler.disable(function, reason=reason)  # type: ignore[no-untyped-call]
    return left_out


def refuse_scripting() -> NoReturn:
    """Say what to do instead of `torch.jit.script`.

    Raises:
        RaysearchError: always.
    """
    raise RaysearchError(
        "a policy cannot be scripted: call torch.jit.script on the network alone and augment the "
        "images before it, as in network(policy(images))"
    )


def _plain(value: Any) -> Any:
    """An attribute of a policy as JSON has it."""
    if isinstance(value, Policy):
        return {"kind": value.kind, **value.body()}
    if isinstance(value, Tensor):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


class Policy(ABC):
    """A distribution over ways to change an image, which may depend on how far a training has come.

    Attributes:
        kind: the name under which the policy is written to JSON.
        fields: what else its JSON has, by name, and what each must be. Attributes of the same names
            hold it, and the constructor takes it.
    """

    kind: ClassVar[str]
    fields: ClassVar[Mapping[str, Check]]

    @outside_graphs
    def __call__(
        self, images: Tensor, generator: torch.Generator | None = None, progress: float = 0.0
    ) -> Tensor:
        """Augment a batch, each image with a draw of its own; outside the graphs of a compiler.

        Args:
            images: uint8 [B, C, H, W], or floating point in [0, 1]; C is 1 or 3. What rounding
                and resizing put outside [0, 1] is clamped.
            generator: source of randomness; None is torch's global one for the CPU. On the CPU is
                best, for images on a GPU too: the operations' parameters are needed there, and
                nothing waits for the GPU.
            progress: how far the training that uses the policy has come, in [0, 1]. Policies
                that do not change over training ignore it.

        Returns:
            A new tensor of the same shape and type.

        Raises:
            TypeError: images of another dtype.
            ValueError: images of another shape; on the CPU also floating-point images that are
                normalised, reach to 255, or have NaN.
        """
        check_images(images)
        if images.is_floating_point() and images.numel() and images.device.type == "cpu":
            check_levels(*(float(level) for level in images.detach().aminmax()))
        return self._augment(images, generator, progress)

    @abstractmethod
    def _augment(
        self, images: Tensor, generator: torch.Generator | None, progress: float
    ) -> Tensor:
        """What a call does."""

    def __prepare_scriptable__(self) -> NoReturn:
        """What `torch.jit.script` calls first; raises `RaysearchError`."""
        refuse_scripting()

    def at(self, progress: float) -> Policy:
        """The policy as it is at a point of a training, in [0, 1]; itself if it never changes."""
        return self

    def moments(self) -> list[float]:
        """When, in [0, 1), another policy comes into force: ascending, the first is 0."""
        return [0.0]

    def operation_rates(self) -> dict[str, float]:
        """Expected number of times that each operation is applied to an image.

        Empty for a policy without discrete operations.
        """
        return {}

    def parameters(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of each parameter of continuous transformations.

        Empty for a policy without such; 0 always stands for an image left as it is.
        """
        return {}

    @abstractmethod
    def describe(self, most: int = 10) -> str:
        """The policy in words for a terminal: its `most` strongest parts, one a line."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.describe(3)}>"

    def body(self) -> Json:
        """The policy's own part of its JSON form; see `fields`."""
        return {name: _plain(getattr(self, name)) for name in self.fields}

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Policy:
        """The policy of what `body` gives, checked by `fields`; raises like the constructor."""
        return cls(**body)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Policy) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_json()))

    @classmethod
    def merge(cls, policies: Sequence[Policy]) -> Policy:
        """The equal mixture of policies, for one search run with several seeds.

        Returns:
            The first if all are equal, else a `Mixture`, into which mixtures go member by member.

        Raises:
            ValueError: no policies.
        """
        from raysearch.policy._mixture import Mixture  # which is a Policy itself

        if not policies:
            raise ValueError("no policies to merge")
        if all(policy == policies[0] for policy in policies):
            return policies[0]
        return Mixture(
            [one for p in policies for one in (p.parts if isinstance(p, Mixture) else [p])]
        )

    def to_json(self) -> Json:
        """The whole JSON document: format, version, kind and the kind's own part."""
        return {"format": FORMAT, "version": VERSION, "kind": self.kind, **self.body()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the policy as JSON; the file appears whole or not at all.

        Raises:
            OSError: the folder does not exist or cannot be written.
        """
        text = json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"
        text = _NUMBERS.sub(lambda numbers: "".join(numbers[0].split()), text)  # on one line
        write_whole(Path(path), text.encode())

    def draw(self, path: str | os.PathLike[str]) -> None:
        """Write a picture; the path's ending chooses its format (`.png`, `.svg`, `.pdf`).

        Each operation's share of all applications as bars, each continuous parameter's mean and
        standard deviation; as lines over the training for a policy that changes.

        Raises:
            RaysearchError: matplotlib, which the extra `search` brings, is not installed.
            OSError: the folder does not exist or cannot be written.
        """
        try:
            from raysearch.results._policy_drawing import draw_policy
        except ModuleNotFoundError as error:
            raise not_installed("drawing a policy", error) from None

        starts = self.moments()
        points = [self.at(start) for start in starts]
        draw_policy(
            path,
            starts,
            [point.marginals() for point in points],
            [point.operations_per_image() for point in points],
            [point.parameters() for point in points],
        )

    def marginals(self) -> dict[str, float]:
        """Each operation's expected share of all applications; sums to 1 unless nothing applies.

        Ordered from the strongest to the weakest.
        """
        rates = self.operation_rates()
        total = sum(rates.values())
        shares = {name: (rate / total if total > 0 else 0.0) for name, rate in rates.items()}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def operations_per_image(self) -> float:
        """Expected number of operations applied to an image."""
        return float(sum(self.operation_rates().values()))
