"""What the model of a verifiers rollout is asked, message by message; the package itself is not needed."""

import json
from types import SimpleNamespace

from rods_jax.adapters import verifiers_env
from rods_jax.types import Call, Message

READ, UNREAD = {"name": "look", "arguments": '{"n": 1}'}, {"name": "look", "arguments": "{"}


def client_of(asked, *replies):
    """Of openai: gives these replies, each a text or a list of functions, and notes the messages of each request."""
    script = iter(replies)

    def create(messages, **_):
        asked.append([*messages])
        said = next(script)
        functions = said if isinstance(said, list) else []
        calls = [{"id": f"id{place}", "type": "function", "function": one} for place, one in enumerate(functions)]
        message = {"role": "assistant"} | ({"tool_calls": calls} if calls else {"content": said})
        made = json.loads(json.dumps(message), object_hook=lambda fields: SimpleNamespace(**fields))
        made.model_dump, made.content = lambda exclude_none: message, message.get("content")
        made.tool_calls = getattr(made, "tool_calls", None)
        return SimpleNamespace(choices=[SimpleNamespace(message=made, finish_reason="stop")], usage=None)

    return SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))


def player(monkeypatch, asked, *replies):
    monkeypatch.setattr(verifiers_env, "require", lambda *_: SimpleNamespace(APIError=OSError))
    return verifiers_env._conversing(client_of(asked, *replies), "m")


def test_rules_and_greeting_are_told_in_their_own_roles(monkeypatch):
    asked = []
    player(monkeypatch, asked, "Hi.")(
        [Message("system", "Be kind."), Message("assistant", "Hello?"), Message("user", "Help.")]
    )
    assert [(one["role"], one["content"]) for one in asked[0]] == [
        ("system", "Be kind."), ("assistant", "Hello?"), ("user", "Help."),
    ]  # fmt: skip


def test_every_call_has_a_result_behind_one_that_cannot_be_read(monkeypatch):
    asked = []
    act = player(monkeypatch, asked, [READ, UNREAD, READ], "Done.")
    said = act([Message("user", "Look.")])
    assert said.action.calls == (Call("look", {"n": 1}),) and said.action.error
    act([Message("tool", "1"), Message("tool", "Error: it cannot be read.")])
    assert [(one["tool_call_id"], one["content"]) for one in asked[1][2:]] == [
        ("id0", "1"), ("id1", "Error: it cannot be read."), ("id2", "Not run."),
    ]  # fmt: skip
