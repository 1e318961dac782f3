"""Who is to blame for what goes wrong with a served model: each row of the table in docs/reference/blame.md, played."""

import itertools
import json
import random
import re
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
from evaluate_toy import TASKS, gold_reply, run, server
from hypothesis import given, settings
from hypothesis import strategies as st

from rods_jax import chat
from rods_jax.chat import Endpoint, http_generate
from rods_jax.dialogue import play
from rods_jax.environments import toolkit
from rods_jax.environments.helpdesk.domain import HELPDESK
from rods_jax.environments.helpdesk.tasks import build
from rods_jax.environments.scoring import RODS
from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.evaluation import score
from rods_jax.rewards import PARSE_ERROR
from rods_jax.run.advice import EARLY, advice, calls_of, left_in_text
from rods_jax.run.players import converse, served
from rods_jax.types import Call, Message, Task, Turn, World

DOCS = Path(__file__).parent.parent / "docs" / "reference" / "blame.md"
TASK = next(task for task in TASKS if task.turns[0].gold and len(task.turns) > 1)


def message(finish="stop", **fields):
    usage = {"prompt_tokens": 5, "completion_tokens": 3}
    return 200, json.dumps({"choices": [{"message": fields, "finish_reason": finish}], "usage": usage})


def calling(arguments, name="f"):
    return message(tool_calls=[{"id": "x", "function": {"name": name, "arguments": arguments}}])


def asks(request):
    """How many messages of the model the request holds."""
    return sum(one["role"] == "assistant" for one in request["messages"])


def played(bad, place=1, task=TASK, domain=WORKPLACE, **settings):
    """(record, requests) of gold play in which `bad` is the reply from a place on, where it is not None."""
    with server(lambda request: bad if asks(request) >= place else gold_reply(request)) as (url, requests):
        endpoint = Endpoint(url=url, model="m", **{"max_retries": 1, "first_wait": 0.001, "timeout": 20.0} | settings)
        return play(domain, task, 0, converse(http_generate(endpoint))), requests


def status(number, text="no"):
    return number, json.dumps({"error": {"message": text}})


LONG = "This model's maximum context length is 8192 tokens"
TEXT_CALL = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'

# What the table's rows are, as replies: the policy is told and scored, or the episode ends.
TOLD = {
    "a call that cannot be read": [
        calling('{"a": '), calling("[1]"), calling(r'{"a": "\ud800"}'), calling("[" * 10_000), calling('{"a": NaN}'),
        calling({"a": json.loads("[" * 200 + "]" * 200)}), message(content="a\ud800"),
    ],
    "a call in the text": [message(content=text) for text in (TEXT_CALL, f"I do it.\n{TEXT_CALL}", "[f(a=1)]")],
    "an empty message": [message(content=""), message(content=None), message(content=" \n"), message(content=[])],
    "a message that `--max-tokens` cut": [
        message("length", content="Now I"), message("length", content=None, tool_calls=[]),
    ],
}  # fmt: skip
ENDED = {
    "a conversation that the server took so far and now finds too long": [
        status(400, LONG),
        status(413),
        status(422, LONG),
    ]
}
RETRIED = {
    "HTTP 429": [status(429)],
    "HTTP 408, 409, 425, 5xx": [status(number) for number in (408, 409, 425, 500, 503, 529)],
    "a lost connection": [None],
    "no chat completion": [
        (200, "<html>"),
        (200, "{}"),
        (200, '{"error": {"message": "overloaded"}}'),
        (200, "["),
    ],
}
FAILED = {
    "a message that the server's filter withheld": [message("content_filter", content=None)],
    "HTTP 401, 402, 403, 404, a redirect": [status(number) for number in (301, 401, 402, 403, 404)],
    "another HTTP 400, 422": [status(number, "messages must alternate") for number in (400, 422)],
}
UNDERSTOOD = "arguments as an object or absent, content in parts, a byte order mark, odd counts"


@pytest.mark.parametrize("row", TOLD)
def test_the_policy_is_told_and_scored(row):
    for bad in TOLD[row]:
        record, requests = played(bad, max_tokens=9)
        assert (record.failure, record.truncated, all(record.rods)) == ("", "", False)
        told = [move.observations for move in record.moves if move.code == PARSE_ERROR]
        assert told and all(text.startswith("Error: ") for (text,) in told)
        sent = [one for one in requests[-1]["messages"] if one["role"] == "assistant"]
        assert all(one["content"] or one.get("tool_calls") for one in sent)  # servers refuse an empty message
    if "cut" in row:
        assert told[0] == ("Error: the message is longer than 9 tokens.",)  # what a run's policy is told


@pytest.mark.parametrize("row", ENDED)
def test_the_policys_limit_ends_the_episode_and_is_scored(row):
    for bad in ENDED[row]:
        record, _ = played(bad)
        assert record.failure == "" and record.truncated.startswith("too_long: HTTP 4") and not all(record.rods)


@pytest.mark.parametrize("row", RETRIED)
def test_what_may_pass_is_retried_and_then_nobodys_score(row):
    for bad in RETRIED[row]:
        record, requests = played(bad)
        assert record.failure and record.truncated == "" and len(requests) == 3  # one good, one bad, one retry
        assert score([TASK], [record], seed=0)["rows"]["all tasks"]["official"] is None


def test_a_time_out_is_retried_and_then_nobodys_score():
    def silent(request):
        return time.sleep(3.0) if asks(request) else gold_reply(request)

    with server(silent) as (url, requests):
        endpoint = Endpoint(url=url, model="m", max_retries=1, first_wait=0.001, timeout=1.5)
        record = play(WORKPLACE, TASK, 0, converse(http_generate(endpoint)))
    assert record.failure == "timeout: no whole reply in 1.5 s" and len(requests) == 3


@pytest.mark.parametrize("row", FAILED)
def test_what_would_be_refused_again_is_not_retried_and_nobodys_score(row):
    for bad in FAILED[row]:
        record, requests = played(bad)
        assert record.failure and record.truncated == "" and len(requests) == 2


def test_a_first_request_that_is_too_long_is_the_configurations():
    record, requests = played(status(400, LONG), place=0)
    assert record.failure.startswith("too_long: HTTP 400") and len(requests) == 1
    (told,) = advice([record], "http://h/v1", 4096)
    assert "--max-tokens 4096" in told


def test_a_proxy_that_cannot_be_used_is_the_configurations(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    generate = http_generate(Endpoint(url="http://example.invalid/v1", model="m"))
    record = play(WORKPLACE, TASK, 0, converse(generate))
    assert record.failure.startswith("misconfigured: the environment's proxy for http://")


def test_what_servers_write_in_several_ways_is_understood():
    def another(request):
        status, body = gold_reply(request)
        body = json.loads(body)
        (choice,) = body["choices"]
        for number, call in enumerate(choice["message"]["tool_calls"]):
            function = call["function"]
            function["arguments"] = json.loads(function["arguments"]) or None
            if number % 2:
                function["arguments"] = json.dumps(function["arguments"])
        choice["message"]["content"] = [{"type": "text", "text": choice["message"]["content"]}]
        return status, "\ufeff" + json.dumps(body | {"usage": {"prompt_tokens": 10**390}, "logprobs": float("nan")})

    with server(another) as (url, _):
        record = play(WORKPLACE, TASK, 0, converse(http_generate(Endpoint(url=url, model="m"))))
    assert all(record.rods) and all(record.official) and record.failure == ""


class Brittle:
    """A world that breaks."""

    def __init__(self):
        self.broken = False

    def __deepcopy__(self, memo):
        raise OSError("the disk is gone")

    def touch(self) -> str:
        """Touches it."""
        return "touched"


def test_a_world_that_breaks_is_the_environments():
    task = Task("t", "s", "base", World(("Brittle",), {}), (Turn("Touch it.", (Call("push"),)),))  # no such tool
    record, _ = played(message(content="Done."), 0, task, toolkit.domain("brittle", {"Brittle": Brittle}))
    assert record.failure.startswith("GoldError") and record.truncated == ""


def test_the_table_has_these_rows_and_no_other():
    table = DOCS.read_text().split("\n## ")[0]
    rows = re.findall(r"^\| (?!what happens|---)(.+?) \|", table, re.MULTILINE)
    others = {
        UNDERSTOOD, "a time-out", "a first request that is too long", "a proxy that cannot be used",
        "a world that breaks, gold that fails", "every call of the evaluation left in the text",
    }  # fmt: skip
    assert set(rows) == {*TOLD, *ENDED, *RETRIED, *FAILED} | others and len(rows) == len(set(rows))


TEXTS = st.text(max_size=4) | st.sampled_from([TEXT_CALL, "\ud800", "", "<think>", "</think>", '{"a": 1}', "null"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
FUNCTIONS = st.fixed_dictionaries({"name": TEXTS | VALUES}, optional={"arguments": TEXTS | VALUES})
MESSAGES = st.fixed_dictionaries(
    {"content": TEXTS | VALUES},
    optional={
        "tool_calls": st.lists(st.fixed_dictionaries({"function": FUNCTIONS}), max_size=2),
        "reasoning_content": TEXTS | VALUES,
        "refusal": VALUES,
    },
)
FINISHES = st.sampled_from(["stop", "tool_calls", "length", None]) | VALUES


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(MESSAGES, FINISHES), min_size=1, max_size=4))
def test_whatever_a_model_writes_its_episode_is_scored_or_fails_by_name(written):
    replies = itertools.cycle(message(finish, **fields)[1] for fields, finish in written)

    def generate(requests):
        json.dumps(
            [vars(one) for one in requests], default=dict, allow_nan=False
        ).encode()  # what goes back is sendable
        try:
            return [chat._read_reply(next(replies), 99)]
        except Exception as error:  # as `http_generate` has it
            return [chat.Reply("", error=chat.MALFORMED_REPLY, detail=str(error))]

    record = play(WORKPLACE, TASK, 0, converse(generate))
    assert record.failure == "" or record.failure.startswith((chat.MALFORMED_REPLY, chat.SERVER_ERROR, chat.FILTERED))
    json.dumps(asdict(record), allow_nan=False).encode()
    advice([record], "http://h/v1", 99)


# ------------------------------------------------------------------------------ what is said about it
def test_a_server_without_a_tool_parser_is_told_early_and_at_the_end(tmp_path):
    for text in (TEXT_CALL, "[f(a=1)]", '```json\n{"name": "f", "arguments": {}}\n```'):
        with server(lambda request, text=text: message(content=text)) as (url, _):
            _, console = run(tmp_path / str(len(text)), player=url, model="m", num_tasks=2)
        said = " ".join(console.file.getvalue().split())
        assert said.count("--tool-call-parser") == 4  # two flags in each of two sentences
        assert said.index("--tool-call-parser") < said.index("mean, 95 %")


def test_calls_in_the_text_are_counted_and_few_among_many_are_the_models():
    record, _ = played(message(content=TEXT_CALL))
    assert calls_of(record)["read"] >= 1 and calls_of(record)["in the text"] >= 1
    for reply in (message(content=TEXT_CALL), message(content=" ", reasoning_content=TEXT_CALL)):
        record, _ = played(reply, place=0)
        assert calls_of(record) == {"read": 0, "in the text": len(record.moves)}
    assert left_in_text(Counter({"in the text": EARLY}), EARLY) and not left_in_text(Counter({"in the text": 7}), 8)
    assert left_in_text(Counter({"in the text": 9, "read": 8})) and not left_in_text(
        Counter({"in the text": 8, "read": 8})
    )


@pytest.mark.parametrize(
    ("number", "path", "words"),
    [
        (404, "", "usually ends in /v1, as http://"),
        (404, "/v1", "/v1/models lists its models"),
        (401, "/v1", "--api-key-env names"),
        (403, "/v1", "--api-key-env names"),
    ],
)
def test_a_wrong_address_or_key_is_told_with_its_remedy(tmp_path, number, path, words):
    with server(lambda request: status(number)) as (url, _):
        result, console = run(tmp_path, player=url.removesuffix("/v1") + path, model="m", num_tasks=2)
    said = " ".join(console.file.getvalue().split())
    assert words in said and "nothing was scored: every episode failed, most of them by misconfigured" in said
    assert result["scores"]["rows"]["all tasks"]["failed"] == 2


def test_cut_messages_are_counted():
    record, _ = played(message("length", content="Now I"), max_tokens=9)
    cut = sum(move.code == PARSE_ERROR for move in record.moves)
    assert cut >= 1 and not advice([played(message(content="x" * 9_000))[0]], "http://h/v1", 9)  # long, not cut
    assert advice([record], "http://h/v1", 9) == [
        f"{cut} messages did not end within --max-tokens 9: a thinking model may need more"
    ]


# ------------------------------------------------------------------------------ the conversation
@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thoughts_go_back_within_a_turn_and_are_kept(name, tmp_path):
    def thinking(request):
        number, body = gold_reply(request)
        body = json.loads(body)
        body["choices"][0]["message"][name] = f"thought {asks(request)}"
        return number, json.dumps(body)

    with server(thinking) as (url, requests):
        record = play(WORKPLACE, TASK, 0, converse(http_generate(Endpoint(url=url, model="m"))))
        run(tmp_path, player=url, model="m", num_tasks=1)
    assert all(record.rods)
    assert [move.reasoning for move in record.moves] == [f"thought {i}" for i in range(len(record.moves))]
    for request in requests:
        users = [i for i, one in enumerate(request["messages"]) if one["role"] == "user"]
        thoughts = [(i, one[name]) for i, one in enumerate(request["messages"]) if name in one]
        said = [i for i, one in enumerate(request["messages"]) if one["role"] == "assistant"]
        assert [i for i, _ in thoughts] == [i for i in said if i > users[-1]]
        assert all(thought == f"thought {said.index(i)}" for i, thought in thoughts)
    assert "thought 0" in (tmp_path / "trajectories.html").read_text()


def test_a_name_that_no_tool_could_have_is_sent_back_as_one():
    record, requests = played(calling("{}", "no tool, but words! " * 9), place=1)
    names = [
        call["function"]["name"]
        for one in requests[-1]["messages"]
        for call in one.get("tool_calls", ())
    ]  # fmt: skip
    assert record.failure == "" and all(re.fullmatch(r"[\w.-]{1,64}", name) for name in names)
    assert record.moves[-1].calls[0].name.startswith("no tool, but")


def test_of_several_calls_those_that_can_be_read_are_kept():
    good = {"id": "x", "function": {"name": "no_such_tool", "arguments": "{}"}}
    bad = {"id": "y", "function": {"name": "f", "arguments": "{"}}
    record, requests = played(message(tool_calls=[good, bad]))
    told = [move for move in record.moves if "cannot be read" in str(move.observations)]
    assert told and record.failure == ""
    for request in requests:
        asked = [call["id"] for one in request["messages"] for call in one.get("tool_calls", ())]
        answered = [one["tool_call_id"] for one in request["messages"] if one["role"] == "tool"]
        assert asked == answered


def test_calls_that_a_world_did_not_answer_get_a_result_that_says_so():
    """A gymnasium environment stops at the first call that it refuses."""
    asked = []

    def generate(requests):
        asked.extend(requests)
        return [chat.Reply("", (Call("act"), Call("fly"), Call("act")))]

    act = converse(generate)
    act([Message("user", "Go.")])
    act([Message("tool", "seen"), Message("tool", "Error: call act.")])
    names = [one["id"] for one in asked[1].messages[1]["tool_calls"]]
    results = zip(names, ("seen", "Error: call act.", "Not run."), strict=True)
    assert [(one["tool_call_id"], one["content"]) for one in asked[1].messages[2:]] == [*results]


def test_who_stops_reading_a_served_player_ends_its_episodes():
    with server(gold_reply) as (url, requests):
        player = served(WORKPLACE, http_generate(Endpoint(url=url, model="m")), 1, RODS)
        records = player([(task, 0) for task in TASKS])
        assert next(records).failure == ""
        records.close()
        assert len({request["messages"][0]["content"] for request in requests}) <= 3


def test_a_first_request_that_is_too_long_is_in_no_score_whatever_the_world():
    too_long = chat.Reply("", error=chat.TOO_LONG, detail="HTTP 400: the context length is 8")
    parts = build(random.Random(0), max_faults=1, seeds=1, held_out=1, validation=1, practice=1)
    for domain, task in ((WORKPLACE, TASK), (HELPDESK, parts.seeds[0])):  # a conversation begins with several messages
        record = play(domain, task, 0, converse(lambda requests: [too_long]))
        assert record.failure.startswith("too_long") and record.truncated == ""
