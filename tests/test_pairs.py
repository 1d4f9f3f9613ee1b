"""The policy over ordered pairs of elements."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from raysearch import ops
from raysearch.errors import RaysearchError
from raysearch.policy import Mixture, Pairs, from_json


class TestPairs:
    def test_the_papers_space_has_1296_pairs(self) -> None:
        policy = Pairs.uniform(ops.OPERATIONS[1:15])
        assert policy.probabilities.shape == (36, 36)
        assert math.isclose(float(policy.probabilities[3, 7]), 1 / 1296)
        assert policy.elements[0] == "ShearX(0.33)"
        assert "AutoContrast" in policy.elements

    def test_draws_follow_the_probabilities(self) -> None:
        p = torch.tensor([[0.5, 0.0], [0.2, 0.3]])
        policy = Pairs(["Rotate", "Invert"], torch.tensor([0.5, 1.0]), p)
        draws = policy.sample(20_000, generator=torch.Generator().manual_seed(0))
        share = draws.sub_policy.bincount(minlength=4) / 20_000
        assert torch.allclose(share, p.flatten(), atol=0.015)
        assert share[1] == 0
        ids = torch.tensor([ops.operation_id("Rotate"), ops.operation_id("Invert")])
        assert bool((draws.operation[draws.sub_policy == 2] == ids.flip(0)).all())
        assert bool(draws.applied.all())

    def test_rates_are_first_plus_second(self) -> None:
        p = torch.tensor([[0.5, 0.0], [0.2, 0.3]])
        policy = Pairs(["Rotate", "Rotate"], torch.tensor([0.5, 1.0]), p)
        assert torch.allclose(policy.element_rates(), torch.tensor([1.2, 0.8]).double())
        assert policy.operation_rates() == pytest.approx({"Rotate": 2.0})

    def test_it_is_the_same_through_a_file(self, tmp_path: Any) -> None:
        p = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
        policy = Pairs.uniform(["Rotate", "Invert", "Equalize", "AutoContrast"], levels=1)
        policy = Pairs(policy.operations, policy.magnitudes, p)
        assert from_json(policy.to_json()) == policy
        policy.draw(tmp_path / "policy.png")
        assert "Rotate(1.00), then" in policy.describe(16)

    def test_without_an_element_the_rest_keeps_its_ratios(self) -> None:
        p = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
        policy = Pairs(["Rotate", "Invert", "Equalize"], torch.ones(3), p).without([1])
        expected = torch.tensor([[1.0, 0.0, 3.0], [0.0, 0.0, 0.0], [7.0, 0.0, 9.0]]).double() / 20
        assert torch.allclose(policy.probabilities, expected)

    def test_seeds_merge_into_the_mean(self) -> None:
        one = Pairs(["Rotate", "Invert"], torch.ones(2), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
        two = Pairs(["Rotate", "Invert"], torch.ones(2), torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
        merged = Pairs.merge([one, two])
        assert isinstance(merged, Pairs)
        assert merged.probabilities.tolist() == [[0.5, 0.0], [0.0, 0.5]]
        other = Pairs(["Rotate"], torch.ones(1), torch.ones(1, 1))
        assert isinstance(Pairs.merge([one, other]), Mixture)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"probabilities": [[1.0, 0.0]]}, r"probabilities: shape \(1, 2\), expected \(2, 2\)"),
            ({"probabilities": [[1.0, 0.0], [1.0]]}, "differ in length"),
            ({"probabilities": [[0.0, 0.0], [0.0, 0.0]]}, "not all zero"),
            ({"magnitudes": [0.5, 1.5]}, "magnitudes"),
            ({"operations": ["Rotat", "Invert"]}, "did you mean 'Rotate'"),
        ],
    )
    def test_a_wrong_file_is_one_line(self, change: dict[str, Any], message: str) -> None:
        document = Pairs.uniform(["Rotate", "Invert"], levels=1).to_json() | change
        with pytest.raises(RaysearchError, match=message):
            from_json(document)
