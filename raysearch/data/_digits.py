"""scikit-learn's handwritten digits: 1,797 grey images of 8x8 pixels, installed with it."""

from __future__ import annotations

import numpy as np

from raysearch.data._source import ArraySource, Listing, Part


def list_digits() -> Listing:
    """The digits, their 17 levels (0 to 16) spread over 0 to 255; one part, train."""
    from sklearn.datasets import load_digits  # slow to import, and needed by nothing else

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    part = Part(ArraySource.of("digits", pixels), digits.target.astype(np.int64))
    return Listing(tuple(str(name) for name in digits.target_names), {"train": part})
