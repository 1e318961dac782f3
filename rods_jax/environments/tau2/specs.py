"""What the policy reads of a tool: the JSON schema of its method's hints, in the words of the user's copy of tau2-bench.

A tool that the copy lacks is described by the method's own docstring.
"""

import ast
import inspect
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, NamedTuple

import docstring_parser

from rods_jax.environments.tau2.data import Files, classes
from rods_jax.environments.tau2.toolkit import Toolkit, marks
from rods_jax.types import Json, ToolSpec

_SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


class _Words(NamedTuple):
    description: str
    fields: Mapping[str, str]


def tool_specs(toolkit: type[Toolkit], files: Files, domain: str) -> tuple[ToolSpec, ...]:
    """Of all tools of a class, in its order. TauDataError: the files have no texts."""
    source = classes(files, domain)
    return tuple(_spec(toolkit, name, source) for name in marks(toolkit))


def _spec(toolkit: type[Toolkit], name: str, source: Mapping[str, ast.ClassDef]) -> ToolSpec:
    method = getattr(toolkit, name)
    hints = typing.get_type_hints(method)
    words = _method_words(source, toolkit.__name__, name, method)
    definitions: dict[str, Json] = {}
    properties, required = {}, []
    for field, parameter in list(inspect.signature(method).parameters.items())[1:]:
        optional = parameter.default is not parameter.empty
        hint = hints[field]
        if optional and type(None) in typing.get_args(hint):  # only its other type is shown
            (hint,) = (one for one in typing.get_args(hint) if one is not type(None))
        extra = {"default": parameter.default} if optional else {}
        properties[field] = _property(hint, field, words.fields.get(field, ""), extra, definitions, source)
        required += [] if optional else [field]
    schema = {"properties": properties, "title": "parameters", "type": "object"}
    if required:
        schema["required"] = required
    if definitions:
        schema["$defs"] = dict(sorted(definitions.items()))
    return ToolSpec(name, words.description, dict(sorted(schema.items())), toolkit.__name__)


def _property(
    hint: Any,
    name: str,
    description: str,
    extra: Mapping[str, Json],
    definitions: dict[str, Json],
    source: Mapping[str, ast.ClassDef],
) -> dict[str, Json]:
    schema = {**_schema(hint, definitions, source), **extra}
    if "$ref" not in schema:
        schema["title"] = name.replace("_", " ").title()
    if description:
        schema["description"] = description
    return dict(sorted(schema.items()))


def _schema(hint: Any, definitions: dict[str, Json], source: Mapping[str, ast.ClassDef]) -> dict[str, Json]:
    if hint in _SCALARS:
        return {"type": _SCALARS[hint]}
    if hint is dict:
        return {"additionalProperties": True, "type": "object"}
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        return {"items": _schema(inner[0], definitions, source), "type": "array"}
    if origin is Literal:
        return {"enum": list(inner), "type": "string"}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(one, definitions, source) for one in inner]}
    if hint.__name__ not in definitions:
        definitions[hint.__name__] = {}  # its place, before its fields look for it
        definitions[hint.__name__] = _definition(hint, definitions, source)
    return {"$ref": f"#/$defs/{hint.__name__}"}


def _definition(cls: type, definitions: dict[str, Json], source: Mapping[str, ast.ClassDef]) -> dict[str, Json]:
    """Of a class whose hints are the fields of an object, or of an enumeration."""
    if issubclass(cls, StrEnum):
        return {"enum": [str(member) for member in cls], "title": cls.__name__, "type": "string"}
    words = _class_words(source.get(cls.__name__))
    hints = typing.get_type_hints(cls)
    properties = {
        field: _property(
            hint,
            field,
            words.fields.get(field, ""),
            {"default": getattr(cls, field)} if hasattr(cls, field) else {},
            definitions,
            source,
        )
        for field, hint in hints.items()
    }
    schema: dict[str, Json] = {"properties": properties, "title": cls.__name__, "type": "object"}
    required = [field for field in hints if not hasattr(cls, field)]
    if required:
        schema["required"] = required
    else:  # all fields have defaults: of these classes, the official one takes no others
        schema["additionalProperties"] = False
    if words.description:
        schema["description"] = words.description
    return dict(sorted(schema.items()))


# -------------------------------------------------------------------------------- words of the copy
def _method_words(source: Mapping[str, ast.ClassDef], cls: str, name: str, method: Any) -> _Words:
    nodes = source[cls].body if cls in source else []
    docs = [ast.get_docstring(node) for node in nodes if isinstance(node, ast.FunctionDef) and node.name == name]
    parsed = docstring_parser.parse(docs[0] if docs and docs[0] else inspect.getdoc(method) or "")
    fields = {field.arg_name: field.description or "" for field in parsed.params}
    parts = [part for part in (parsed.short_description, parsed.long_description) if part]
    return _Words("\n\n".join(parts), fields)


def _class_words(node: ast.ClassDef | None) -> _Words:
    fields = {}
    for statement in node.body if node else ():
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.value, ast.Call):
            for keyword in statement.value.keywords:
                if keyword.arg == "description" and isinstance(keyword.value, ast.Constant):
                    fields[ast.unparse(statement.target)] = str(keyword.value.value)
    return _Words((node and ast.get_docstring(node)) or "", fields)
