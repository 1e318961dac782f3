"""What records must look like: a shape is a function from a value to the value as the official models hold it.

    passenger = record("Passenger", {"first_name": text, "bags": integer, "seat": (maybe(text), None)})
    passenger({"bags": 2.0, "first_name": "Ada", "x": 1})     # Record(first_name="Ada", bags=2, seat=None)

Fields come in the order of the shape; a missing one takes its default; numbers take their type.  What does not fit
raises ValueError.
"""

from collections.abc import Callable, Iterable, Mapping

from rods_jax.environments.tau2.values import Record
from rods_jax.types import Json

_YES, _NO = ("1", "on", "t", "true", "y", "yes"), ("0", "off", "f", "false", "n", "no")
_INSIDE = " validation error"  # of a record's text
Shape = Callable[[Json], Json]
Field = Shape | tuple[Shape, Json]  # with a default: the field may be missing


class ShapeError(ValueError):
    """A value that is not of its shape; the first line is the official one."""

    def __init__(self, text: str, count: int = 1):
        super().__init__(text)
        self.count = count  # of what is wrong inside


def text(value: Json) -> str:
    if not isinstance(value, str):
        raise ShapeError(f"Input should be a valid string, not {value!r}")
    return value


def integer(value: Json) -> int:
    """Also of a whole float, and of their texts."""
    whole = number(value)
    if not whole.is_integer():
        raise ShapeError(f"Input should be a valid integer, not {value!r}")
    return int(value) if isinstance(value, int) else int(whole)


def number(value: Json) -> float:
    """Always a float."""
    try:
        if isinstance(value, int | float | str):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise ShapeError(f"Input should be a valid number, not {value!r}")


def boolean(value: Json) -> bool:
    """Also of 0 and 1, and of the words for yes and no."""
    word = value.lower() if isinstance(value, str) else str(int(value)) if value in (0, 1) else ""
    if word not in (*_YES, *_NO):
        raise ShapeError(f"Input should be a valid boolean, not {value!r}")
    return word in _YES


def choice(*allowed: str) -> Shape:
    def shape(value: Json) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise ShapeError(f"Input should be one of {list(allowed)}, not {value!r}")
        return value

    return shape


def maybe(inner: Shape) -> Shape:
    """Or null."""
    return lambda value: None if value is None else inner(value)


def items(inner: Shape) -> Shape:
    """A list."""

    def shape(value: Json) -> list[Json]:
        if not isinstance(value, list | tuple):
            raise ShapeError(f"Input should be a valid list, not {value!r}")
        return _each(inner, value)

    return shape


def table(inner: Shape, key: Shape = text) -> Shape:
    """A mapping of names to values."""

    def shape(value: Json) -> dict[str, Json]:
        if not isinstance(value, Mapping):
            raise ShapeError(f"Input should be a valid dictionary, not {value!r}")
        try:
            return {key(name): inner(one) for name, one in value.items()}
        except ShapeError:
            errors = [*_errors(key, value), *_errors(inner, value.values())]
            raise ShapeError(str(errors[0]), sum(error.count for error in errors)) from None

    return shape


def record(name: str, fields: Mapping[str, Field], closed: bool = False) -> Shape:
    """An object; closed: an unknown field is an error, else it is left out."""
    shapes = {field: form if isinstance(form, tuple) else (form,) for field, form in fields.items()}

    def shape(value: Json) -> Record:
        if not isinstance(value, Mapping):
            raise ShapeError(f"1 validation error for {name}\n  Input should be a valid dictionary, not {value!r}")
        made, wrong, count = Record(), [], 0
        for field, (inner, *default) in shapes.items():
            if field in value:
                try:
                    made[field] = inner(value[field])
                except ShapeError as error:
                    text = str(error)
                    wrong.append((field, text.partition("\n")[2] if _INSIDE in text else f"  {text}"))
                    count += error.count
            elif default:
                made[field] = _fresh(default[0])
            else:
                wrong.append((field, "  Field required"))
                count += 1
        extra = [field for field in value if closed and field not in shapes]
        wrong += [(field, "  Extra inputs are not permitted") for field in extra]
        if wrong:
            count += len(extra)
            told = "".join(f"\n{field}\n{reason}" for field, reason in wrong)
            raise ShapeError(f"{count} validation error{'s' if count > 1 else ''} for {name}{told}", count)
        return made

    return shape


def tagged(field: str, shapes: Mapping[str, Shape]) -> Shape:
    """An object of one of several shapes, as a field of it says."""

    def shape(value: Json) -> Json:
        tag = value.get(field) if isinstance(value, Mapping) else None
        if not isinstance(tag, str) or tag not in shapes:
            raise ShapeError(f"Input should have {field} among {list(shapes)}, not {tag!r}")
        return shapes[tag](value)

    return shape


def _each(inner: Shape, values: Iterable[Json]) -> list[Json]:
    """ShapeError: the first of all that are wrong, and how many they are."""
    try:
        return [inner(one) for one in values]
    except ShapeError:
        errors = _errors(inner, values)
        raise ShapeError(str(errors[0]), sum(error.count for error in errors)) from None


def _errors(inner: Shape, values: Iterable[Json]) -> list[ShapeError]:
    errors = []
    for one in values:
        try:
            inner(one)
        except ShapeError as error:
            errors.append(error)
    return errors


def _fresh(value: Json) -> Json:
    return value() if callable(value) else value
