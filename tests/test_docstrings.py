"""Descriptions out of docstrings, in the styles that people write."""

import inspect

import pytest

from rods_jax.environments.docstrings import read_docstring

BOTH = {"x": "How far.", "y": "How fast."}


@pytest.mark.parametrize(
    "sections, expected",
    [
        ("Args:\n    x: How far.\n    y: How\n        fast.\n\nReturns:\n    n", BOTH),
        ("Args:\n    x (int): How far.\n    y (int, optional) : How fast.", BOTH),
        ("Arguments:\n    x: How far.\n\nKeyword Args:\n    y: How fast.", BOTH),
        ("args:\n    x: How far.\n    y: How fast.", BOTH),
        ("Args:\n    x: How far.\n    y: How fast.\n\nWarning:\n    Loud: very.\n\nTodo:\n    * z: More.", BOTH),
        ("Args:\n    x: How far.\n    y: How fast.\n\nSide Effects:\n    None of: any.", BOTH),
        ("Raises:\n    ValueError\n    no colon\n\nArgs:\n    x: How far.\n    y: How fast.", BOTH),
        ("Example:\n    a: b\n\n:param x: How far.\n:param int y: How\n    fast.\n:returns: n", BOTH),
        (
            "Parameters\n----------\nx : int\n    How far.\ny : {'a'}, optional\n    How fast.\n\nReturns\n-------\nint\n    n",
            BOTH,
        ),
        (
            "Parameters\n----------\nx, y : int\n    Both.\n\nSee Also\n--------\nother : no",
            {"x": "Both.", "y": "Both."},
        ),
        ("@param x: How far.\n@param y: How fast.\n@return: n", BOTH),
        ("Args:\n    None.", {}),
        ("Args:\n\nReturns:\n    n", {}),
        ("", {}),
    ],
)
def test_descriptions_reach_their_parameters_and_sections_not_the_text(sections, expected):
    text, parameters = read_docstring(inspect.cleandoc(f"Opens it.\n\nCarefully: twice.\n\n{sections}"))
    assert parameters == expected
    assert text.removesuffix(" Example: a: b") == "Opens it. Carefully: twice."


def test_a_list_in_the_text_stays_there():
    text, parameters = read_docstring("Opens it.\n\nPossible values:\n    up: U\n\nArgs:\n    x: How far.")
    assert (text, parameters) == ("Opens it. Possible values: up: U", {"x": "How far."})


@pytest.mark.parametrize("sections", ["Args:\n    x: How far.\n    no name", ":param: How far.", ":param a b c: no"])
def test_what_cannot_be_read_is_said(sections):
    with pytest.raises(ValueError, match="Expected"):
        read_docstring(f"Opens it.\n\n{sections}")
