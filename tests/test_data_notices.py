"""What was set aside while data were read: counted, with the first names."""

from __future__ import annotations

import pickle

from raysearch.data._notices import Notices


def test_the_same_words_add_up() -> None:
    notices = Notices()
    notices.add("file{s} {are} passed over", "a")
    assert notices.lines == ("1 file is passed over: a",)
    notices.add("file{s} {are} passed over", ["b", "c", "d"])
    notices.add("file{s} {are} passed over", [])
    notices.say("test is split off")
    notices.say("test is split off")
    assert notices.lines == ("4 files are passed over: a, b, c, ...", "test is split off")
    assert notices.count("file{s} {are} passed over") == 4
    assert notices.count("row{s}") == 0


def test_what_others_collected_is_merged() -> None:
    notices, other = Notices(), Notices()
    notices.add("class{es} {were} left out", "x")
    other.add("class{es} {were} left out", ["y", "{s}"], count=1200)
    other.say("a sentence")
    notices.merge(pickle.loads(pickle.dumps(other)))
    assert notices.lines == ("1,201 classes were left out: x, y, {s}, ...", "a sentence")
