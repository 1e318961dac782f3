"""Arithmetic as the agents' tool `calculate` reads it: parsed, never run, and bounded.

calculate("10/4")      # "2.5"
"""

import ast
import operator
from collections.abc import Callable
from typing import Any

from rods_jax.threads import parse_python

_ALLOWED = frozenset("0123456789+-*/(). ")
_MAX_CHARACTERS = 1000
_MAX_POWER_BITS = 10_000  # of a whole number's power

_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}


def calculate(expression: str) -> str:
    """The value, rounded to two places. ValueError, SyntaxError, ArithmeticError, TypeError: as Python says it."""
    if not all(character in _ALLOWED for character in expression):
        raise ValueError("Invalid characters in expression")
    if len(expression) > _MAX_CHARACTERS:
        raise ValueError(f"Expression is longer than {_MAX_CHARACTERS} characters")
    return str(round(float(_value(parse_python(expression.lstrip(" "), "eval").body)), 2))


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.UnaryOp(op=ast.UAdd() | ast.USub() as sign, operand=operand):
            return -_value(operand) if isinstance(sign, ast.USub) else +_value(operand)
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _BINARY:
            a, b = _value(left), _value(right)
            if isinstance(operation, ast.Pow) and isinstance(a, int) and isinstance(b, int):
                if a.bit_length() * b > _MAX_POWER_BITS:
                    raise ValueError(f"Power of more than {_MAX_POWER_BITS} bits")
            return _BINARY[type(operation)](a, b)
    raise ValueError("Expression is no arithmetic")
