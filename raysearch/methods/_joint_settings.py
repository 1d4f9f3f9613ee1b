"""Settings of the methods that train an augmenter network, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from raysearch.methods._settings import MethodSettings
from raysearch.settings import BelowOne, Count, NotNegative, Positive, wrong


@dataclass(frozen=True)
class JointSettings(MethodSettings):
    """The `method` group of `stn`, and what `bilevel` has in common with it.

    Attributes:
        transformations: what the augmenter learns.
        size: of the augmenter; see `raysearch.methods._augmenter.SIZES`.
        gain: factor on the starting weights of the augmenter's last layer, whose biases it then
            sets to 0; 0 leaves both as PyTorch draws them.
        lr: the augmenter's learning rate (SGD).
        schedule: of that learning rate: `constant`, or half a `cosine` to 0.
        normalise: divide the augmenter's gradient by the running root mean square of its norm,
            so that `lr` is the length of a step whatever the scale of the losses. The gradient
            falls by orders of magnitude as ζ and the training loss do.
        momentum: the augmenter's, in [0, 1).
        weight_decay: the augmenter's, at least 0.
    """

    transformations: Literal["translation", "affine", "colour", "affine+colour"]
    size: Literal["small", "medium", "large"]
    gain: NotNegative
    lr: Positive
    schedule: Literal["constant", "cosine"]
    normalise: bool
    momentum: BelowOne
    weight_decay: NotNegative


@dataclass(frozen=True)
class BilevelSettings(JointSettings):
    """The `method` group of `bilevel`.

    Attributes:
        unroll: K, the classifier's last steps through which the augmenter's gradient goes.
        interval: J, the classifier's steps from one update of the augmenter to the next, at
            least K.
        resplit: divide the training images anew in every epoch rather than once, where the data
            have no validation split of their own.
        clean_statistics: at the end, take batch normalisation's running statistics from training
            images as they are. So are those with which the validation loss was computed.
    """

    unroll: Count
    interval: Count
    resplit: bool
    clean_statistics: bool

    def __post_init__(self) -> None:
        if self.unroll > self.interval:
            most = f"at most method.interval={self.interval}, which can be set too"
            raise wrong("method.unroll", self.unroll, most)
