"""Tools as the policy reads them, in three sizes and as a bare name: the `document` of every codec."""

import json
from collections.abc import Mapping

from rods_jax.types import Json, ToolSpec


def function_schema(tool: ToolSpec) -> dict[str, Json]:
    """What chat templates and endpoints take as a tool."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    if tool.response:
        function["response"] = tool.response
    return {"type": "function", "function": function}


def tool_schema(tool: ToolSpec) -> str:
    """The JSON schema over many lines, as Llama's template and BFCL's classic prompt print it."""
    return json.dumps(function_schema(tool), ensure_ascii=False, indent=4)


def tool_line(tool: ToolSpec) -> str:
    """The JSON schema in one line, as Qwen's template prints it."""
    return json.dumps(function_schema(tool), ensure_ascii=False)


def tool_signature(tool: ToolSpec) -> str:
    """`name(a: string, b: integer = 1): what it does`, in one line; "..." is a default that nobody documented."""
    # BFCL begins every description with the same sentence about the class.
    does = " ".join(tool.description.split("Tool description: ")[-1].split())
    return f"{tool.name}({_fields(tool.parameters)}): {does}"


def tool_name(tool: ToolSpec) -> str:
    """Only the name, for policies that have learned their tools."""
    return tool.name


def _fields(schema: Mapping[str, Json]) -> str:
    required = schema.get("required", ())
    return ", ".join(
        f"{name}: {_type(field)}" + ("" if name in required else f" = {_default(field)}")
        for name, field in schema.get("properties", {}).items()
    )


def _default(schema: Json) -> str:
    known = isinstance(schema, Mapping) and "default" in schema
    return json.dumps(schema["default"], ensure_ascii=False) if known else "..."


def _type(schema: Json) -> str:
    if not isinstance(schema, Mapping):  # true: any value
        return "any"
    if "enum" in schema:
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " | ".join(map(_type, schema[several]))
    if "properties" in schema:
        return "{" + _fields(schema) + "}"
    if "prefixItems" in schema:
        return f"array[{', '.join(map(_type, schema['prefixItems']))}]"
    if "items" in schema:
        return f"array[{_type(schema['items'])}]"
    kind = schema.get("type", "any")
    return kind if isinstance(kind, str) else " | ".join(kind)
