"""Values of --set and YAML to declared types."""

from collections.abc import Sequence
from typing import Any, Literal

import pytest

from saccade.types.coerce import coerce


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (3, int, 3), (3.0, int, 3), ("3", int, 3), (3, float, 3.0), ("1e-3", float, 0.001), (True, bool, True), ("no", bool, False),
        ("a", str, "a"), (None, int | None, None), ("x", int | str, "x"), (3, float | int, 3), ([1, 2], tuple[int, int], (1, 2)),
        ((1, 2.0), tuple[float, ...], (1.0, 2.0)), ([1], list[int], [1]), ([1], Sequence[int], (1,)), ("b", Literal["a", "b"], "b"),
        ({"x": 1}, Any, {"x": 1}), ("resnet18", str | None, "resnet18"), (2, Literal[2, 3], 2), ([], tuple[int, ...], ()),
    ],
)  # fmt: skip
def test_what_fits(value, hint, expected):
    got = coerce(value, hint)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint", "says"),
    [
        ("big", int, "a whole number"), (2.5, int, "a whole number"), (True, int, "a whole number"), ("x", float, "a number"),
        (1, bool, "true or false"), (5, str, "a text"), ("c", Literal["a", "b"], "one of a, b"), (None, int, "a whole number"),
        ([1], tuple[int, int], "2 values"), ("12", tuple[int, ...], "a list"), ("x", int | None, "a whole number or nothing"),
        (float("inf"), int, "a whole number"),
        ([1, "y"], tuple[int, ...], "a whole number"), ({}, float, "a number"), (True, Literal[1], "one of"),
    ],
)  # fmt: skip
def test_what_does_not(value, hint, says):
    with pytest.raises(ValueError, match=says):
        coerce(value, hint)
