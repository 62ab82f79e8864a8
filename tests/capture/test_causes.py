"""The line of a program's output that says what went wrong, and the chain of causes behind an exception."""

from __future__ import annotations

import pytest

from exporter.capture.lowering_errors import (
    is_lowering_error_of_user,
    lowering_error_causes,
    lowering_error_in,
    lowering_error_source_in_text,
    shorten_lowering_error,
)


@pytest.mark.parametrize(
    ("text", "last", "cause"),
    [
        ("loading\nThe kernel is missing.\nInit failed for backend X: 0x1", False, "The kernel is missing"),
        ("[a/b.cc:12] Failed to create node.\nmore\nOut of memory :", False, "Failed to create node"),
        ("Failed to create node.\nOut of memory.", True, "Out of memory"),
        ("INFO nothing failed\n  WARNING cannot", False, ""),
        ("all is well", False, ""),
        ("", False, ""),
        ("  x must be " + "y" * 400, False, "x must be " + "y" * 290),
    ],
)
def test_the_first_line_that_says_what_went_wrong(text: str, last: bool, cause: str) -> None:
    """Lines that only pass a failure on do not count, nor do remarks; where a line is from is cut."""
    assert lowering_error_in(text, last) == cause


def chain() -> BaseException:
    """Raise and catch an error whose cause is explicit, and whose cause's context is not."""
    try:
        try:
            try:
                raise KeyError("first")  # noqa: TRY301
            except KeyError:
                raise ValueError("second")  # noqa: B904
        except ValueError as error:
            raise RuntimeError("third") from error
    except RuntimeError as error:
        return error


def test_only_explicit_causes_are_followed_unless_asked() -> None:
    """What was being handled by chance is no cause; a circle ends."""
    assert [type(e) for e in lowering_error_causes(chain())] == [RuntimeError, ValueError]
    assert [type(e) for e in lowering_error_causes(chain(), contexts=True)] == [
        RuntimeError,
        ValueError,
        KeyError,
    ]
    circle = ValueError("round")
    circle.__cause__ = circle
    assert list(lowering_error_causes(circle)) == [circle]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("", "ValueError"),
        ("word", "ValueError: word"),
        ("two words", "ValueError: two words"),
        ("three words here.", "three words here"),
        ("\x1b[31mred\x1b[0m and  wrong\n as well", "red and wrong as well"),
        ("it is wrong\nTraceback (most recent call last):\n x", "it is wrong"),
        ("Traceback (most recent call last): gone", "Traceback (most recent call last): gone"),
    ],
)
def test_a_message_is_cut_to_what_was_wrong(message: str, text: str) -> None:
    """The error's class stands before one or two words, and alone where there are none."""
    assert shorten_lowering_error(ValueError(message)) == text


@pytest.mark.parametrize(
    ("file", "own"),
    [
        ("/home/me/net.py", True),
        ("/x/site-packages/torch/nn.py", False),
        ("/x/dist-packages/torch/nn.py", False),
        ("<string>", False),
        (__import__("os").__file__, False),
        (__import__("exporter").__file__, False),
    ],
)
def test_whose_code_a_file_is(file: str, own: bool) -> None:
    """Neither Python's, nor an installed package's, nor ours is the user's."""
    assert is_lowering_error_of_user(file) is own


def test_the_innermost_own_line_is_the_source() -> None:
    """Lines of packages after it do not count."""
    text = (
        '  File "/a/net.py", line 3, in f\n  File "/a/part.py", line 7, in g\n  File "<eval>", line 1, in h\n'
    )
    assert lowering_error_source_in_text(text) == "/a/part.py:7"
    assert lowering_error_source_in_text("nothing") is None
