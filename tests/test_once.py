"""A search that asks once: what it asks, what it makes of the answer, continuation."""

from __future__ import annotations

import pytest
from _settings import method_settings
from conftest import dark_and_light, through_a_file

from benchmarks._local import answer_to, carry_out
from raysearch import methods
from raysearch.errors import NonFiniteLossError, RaysearchError, SearchFailedError
from raysearch.methods import Once
from raysearch.policy import Policy, trivial_augment
from raysearch.protocol import Answer, Failed, Proposal


def test_an_evaluation_is_one_too() -> None:
    search = Once("training", "evaluation", {"policy": "learned"})
    proposal = search.ask()
    assert proposal == Proposal("training", 0, {"policy": "learned"}, (), "evaluation")
    assert search.ask() is None
    assert not search.finished
    assert search.tell("training", Answer({"test_error": 3.0, "epoch_equivalents": 8.0})) == ()
    assert search.finished
    assert search.ask() is None
    assert search.values["test_error"] == 3.0
    with pytest.raises(LookupError):
        search.policy()


@pytest.mark.parametrize("answer", [Answer({"a": 1}, policy=trivial_augment()), Failed("why")])
def test_it_is_restored_with_its_answer(answer: Answer | Failed) -> None:
    search, again, begun = (Once("search", start=trivial_augment()) for _ in range(3))
    search.ask()
    begun.load_state_dict(through_a_file(search.state_dict()))
    assert begun.ask() == Proposal("search", 0)  # once more
    search.tell("search", answer)
    again.load_state_dict(through_a_file(search.state_dict()))
    assert again.finished
    assert (again.values, again.failed) == (search.values, search.failed)
    if isinstance(answer, Failed):
        with pytest.raises(SearchFailedError, match=r"^why$"):
            again.policy()
    else:
        assert again.policy() == trivial_augment()


def test_before_the_answer_its_policy_is_where_the_work_starts() -> None:
    start: Policy = trivial_augment()
    assert Once("search", start=start).policy() is start


def test_work_that_diverges_has_failed_and_other_errors_are_errors() -> None:
    def diverges(proposal: Proposal, files: object) -> object:
        raise NonFiniteLossError("training", 2, 3)

    def lacks(proposal: Proposal, files: object) -> object:
        raise RaysearchError("the disk is full")

    search = Once("search")
    assert carry_out(search, diverges) == []  # type: ignore[arg-type]
    assert search.failed is not None
    assert search.failed.startswith("training: the loss is not finite at epoch 2, step 3")
    with pytest.raises(RaysearchError, match="the disk is full"):
        answer_to(Proposal("search", 0), lacks)  # type: ignore[arg-type]


def test_a_single_pass_method_takes_no_shared_checkpoint() -> None:
    dada = methods.find("dada").of(method_settings("dada"))
    with pytest.raises(RaysearchError, match="method dada takes no shared checkpoint"):
        dada.fits({}, dark_and_light(), methods.Context({}))
