"""What was set aside while data were read: counted, with the first names."""

from __future__ import annotations

from pathlib import Path

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


def test_names_lie_below_the_root_and_take_one_line() -> None:
    notices = Notices(Path("/photos"))
    for number in range(3):
        notices.add("image{s} {are} odd", f"/photos/{'a' * 40}/{number}.png = /photos/b.png")
    (line,) = notices.lines
    assert line == f"3 images are odd: {'a' * 40}/0.png = b.png, ..."


def test_many_are_counted_by_one_call() -> None:
    notices = Notices()
    notices.add("class{es} {were} left out", "x")
    notices.add("class{es} {were} left out", ["y", "{s}"], count=1200)
    assert notices.lines == ("1,201 classes were left out: x, y, {s}, ...",)
