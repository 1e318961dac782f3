"""Tools as text: the schemas as the templates print them, and a signature that leaves nothing out but prose."""

import json

import pytest

from rods_jax.codecs.documents import function_schema, tool_line, tool_name, tool_schema, tool_signature
from rods_jax.types import ToolSpec

FIELDS = {
    "title": {"type": "string"},
    "at": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
    "sizes": {"type": "array", "items": {"type": "number"}},
    "unit": {"type": "string", "enum": ["m", "ft"], "default": "m"},
    "who": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    "scores": {"type": "object", "additionalProperties": {"type": "integer"}},
}
PARAMETERS = {"type": "object", "properties": FIELDS, "required": ["title", "sizes"]}
TOOL = ToolSpec("plan", "This tool belongs to a calendar.  Tool description: Plans\n a \u00fc.", PARAMETERS, "Calendar")


def test_the_two_schemas_hold_the_same_and_differ_in_lines():
    expected = {
        "type": "function",
        "function": {"name": "plan", "description": TOOL.description, "parameters": PARAMETERS},
    }
    assert function_schema(TOOL) == json.loads(tool_schema(TOOL)) == json.loads(tool_line(TOOL)) == expected
    assert tool_schema(TOOL).startswith('{\n    "type": "function",\n    "function": {\n        "name": "plan"')
    assert "\n" not in tool_line(TOOL) and "\u00fc" in tool_line(TOOL) and "\u00fc" in tool_schema(TOOL)


def test_a_documented_response_is_part_of_the_schema():
    response = {"type": "object", "properties": {"ok": {"type": "boolean"}}}
    tool = ToolSpec("plan", "Plans.", PARAMETERS, "Calendar", response)
    assert json.loads(tool_line(tool))["function"]["response"] == response


def test_a_signature_is_one_line():
    assert tool_signature(TOOL) == (
        'plan(title: string, at: integer | null = null, sizes: array[number], unit: "m" | "ft" = "m", '
        "who: {name: string} = ..., scores: object = ...): Plans a \u00fc."
    )
    nothing = ToolSpec("quit", "Ends.", {"type": "object", "properties": {}, "required": []}, "Files")
    assert tool_signature(nothing) == "quit(): Ends."
    assert tool_name(nothing) == "quit"


def test_a_signature_takes_whatever_json_schema_allows():
    """No properties at all, as tools without parameters have in recorded dialogues, and `true`, which is any value."""
    assert tool_signature(ToolSpec("quit", "Ends.", {"type": "object"}, "")) == "quit(): Ends."
    fields = {"a": True, "b": {"type": "array", "items": True}, "c": {"anyOf": [True, {"type": "null"}]}}
    tool = ToolSpec("f", "Does.", {"type": "object", "properties": fields, "required": ["b"]}, "")
    assert tool_signature(tool) == "f(a: any = ..., b: array[any], c: any | null = ...): Does."


def test_the_sizes_of_a_prompt_of_bfcl():
    """Characters per base task, the mean: what the documents cost, and what the slim ones save."""
    bfcl = pytest.importorskip("rods_jax.environments.bfcl")
    pytest.importorskip("bfcl_eval", exc_type=ImportError)
    domain, tasks = bfcl.bfcl_domain(), bfcl.load_tasks(("base",))
    means = [
        sum(len(document(tool)) for task in tasks for tool in domain.tools_of(task.world.classes)) / len(tasks)
        for document in (tool_schema, tool_line, tool_signature)
    ]
    assert [round(mean, -2) for mean in means] == [35_700, 21_800, 2_600]
