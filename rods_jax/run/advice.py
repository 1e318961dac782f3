"""What the records of an evaluation say about the server that was asked: one sentence each, with its remedy.

Left out on purpose: whose failure an episode is (rods_jax/chat.py says so when it happens).
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from rods_jax.chat import MISCONFIGURED, TOO_LONG
from rods_jax.codecs.grammar import MAX_ACTION_CHARACTERS, looks_like_call
from rods_jax.dialogue import Move, Record

EARLY = 8  # messages with a call in their text, after which it is said while the evaluation goes on

READ, IN_TEXT = "read", "in the text"


def calls_of(record: Record) -> Counter[str]:
    """How many messages had calls that the server read, and how many have one in their text, or in a thought alone."""
    calls = Counter[str]()
    for move in record.moves:
        calls[READ] += bool(move.calls)
        said = (move.text.strip() or move.reasoning)[:MAX_ACTION_CHARACTERS]
        calls[IN_TEXT] += not move.calls and looks_like_call(said) is not None
    return calls


def left_in_text(calls: Counter[str], at_least: int = 1) -> str | None:
    """Whether a server looks as if it had no tool parser, or that of another model."""
    if calls[IN_TEXT] < max(at_least, calls[READ] + 1):
        return None
    return (
        f"{calls[IN_TEXT]} messages hold a tool call as text, and of {calls[READ]} the server read one: start it with "
        "its tool parser (vLLM: --enable-auto-tool-choice --tool-call-parser NAME; SGLang: --tool-call-parser NAME; "
        "llama.cpp: --jinja)"
    )


def advice(records: Sequence[Record], url: str, max_tokens: int) -> list[str]:
    """Sentences about the server at `url`, before anybody takes its settings for the model."""
    found = [left_in_text(sum(map(calls_of, records), Counter()))]
    denied = Counter(_status(record.failure) for record in records if record.failure.startswith(MISCONFIGURED))
    if denied["404"] and not url.rstrip("/").endswith("/v1"):
        found.append(
            f"the server has no {url}/chat/completions: an address usually ends in /v1, as {url.rstrip('/')}/v1"
        )
    elif denied["404"]:
        found.append(f"the server has no such address or model: GET {url.rstrip('/')}/models lists its models")
    if denied["401"] + denied["403"]:
        found.append("the server refuses the key: --api-key-env names the environment variable that holds it")
    if _num(record.failure.startswith(TOO_LONG) for record in records):
        found.append(f"the server's context does not hold a first request and --max-tokens {max_tokens}")
    if cut := _num(_is_cut(move) for record in records for move in record.moves):
        found.append(f"{cut} messages did not end within --max-tokens {max_tokens}: a thinking model may need more")
    return [sentence for sentence in found if sentence]


def _num(flags: Iterable[bool]) -> int:
    return sum(map(bool, flags))


def _is_cut(move: Move) -> bool:
    """Whether it was told so: by the text that a run's policy and a served one get alike."""
    told = "".join(move.observations[:1])
    return told.startswith("Error: the message is longer than") and told.endswith("tokens.")


def _status(failure: str) -> str:
    """Of `misconfigured: HTTP 404: ...`; empty where there was none."""
    return failure.partition("HTTP ")[2][:3]
