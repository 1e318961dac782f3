"""Environments of verifiers in and out, against the real package and a real server of a model."""

import asyncio
import json

import pytest
from chat_server import chat_server, completion, send
from rollout_toy import TASKS

vf = pytest.importorskip("verifiers.v1")

from verifiers_toy import Calculator, Remembering, Sum, SumTask, SumTaskset  # noqa: E402

from rods_jax.adapters import verifiers_env  # noqa: E402
from rods_jax.dialogue import Said, play  # noqa: E402
from rods_jax.environments.episode import start_episodes  # noqa: E402
from rods_jax.environments.protocol import Failure  # noqa: E402
from rods_jax.environments.scoring import RODS  # noqa: E402
from rods_jax.types import Action, Call  # noqa: E402

PICTURE = {"type": "image_url", "image_url": {"url": "data:,"}}
OUT = "verifiers_toy"  # the module that names a taskset and a harness


@pytest.fixture(scope="module")
def sums():
    return verifiers_env.domain("sums", SumTaskset(vf.TasksetConfig()))


def taskset_of(*tasks):
    class Some(vf.Taskset[type(tasks[0]), vf.TasksetConfig]):
        def load(self):
            yield from tasks

    return Some(vf.TasksetConfig())


def add(a, b):
    return Action(calls=(Call("calculator_add", {"a": a, "b": b}),))


# -------------------------------------------------------------------------------------------- in
def test_a_task_is_played_with_its_tools_and_scored_by_its_own_rewards(sums):
    domain, tasks = sums
    assert [task.id for task in tasks] == ["sums_2+3", "sums_40+2"]
    batch = start_episodes(domain, tasks)
    assert batch.openings[0].user == "Be brief.\n\n2 + 3?" and batch.openings[0].num_checks == 10
    assert [tool.name for tool in batch.openings[0].tools] == ["calculator_add", "calculator_hint"]
    assert set(domain.tools["calculator_add"].parameters["properties"]) == {"a", "b"}
    called = batch.act({0: add(2, 3), 1: Action(calls=(Call("calculator_hint"),))})
    assert called[0].observations == ("5",) and called[1].observations == ("42",)
    ended = batch.act({0: Action(answer="5"), 1: Action(answer="41")})
    assert ended[0].passed == (True,) * 10 and ended[0].done
    assert ended[1].passed == (True,) * 3 + (False,) * 7
    without = play(domain, tasks[0], 0, lambda messages: Said("5", Action(answer="5")))
    assert sum(without.rods) == 7 and not without.failure


def test_what_the_policy_does_wrong_is_told_until_the_rules_end_it(sums):
    domain, tasks = sums
    batch = start_episodes(domain, tasks[:1])
    assert "no number below 0" in batch.act({0: add(-1, 3)})[0].observations[0]
    assert batch.act({0: Action(calls=(Call("look"),))})[0].observations == ("Error: unknown tool look",)
    assert batch.act({0: Action(error="it cannot be read")})[0].observations == ("Error: it cannot be read.",)
    for _ in range(RODS.max_attempts - 3):
        assert not batch.act({0: add(1, 1)})[0].done
    answer = batch.act({0: add(2, 3)})[0]
    assert answer.done and sum(answer.passed) == 3  # a tool did tell the sum


def test_checks_may_be_others():
    domain, tasks = verifiers_env.domain(
        "sums",
        SumTaskset(vf.TasksetConfig()).take(1),
        judge=lambda trace: [trace.rewards["right"].score == 1, trace.metrics["turns"] == 1],
        num_checks=2,
    )
    record = play(domain, tasks[0], 0, lambda messages: Said("6", Action(answer="6")))
    assert record.rods == (False, True)


@pytest.mark.parametrize("num_checks, passed", [(20, 14), (5, 3)])
def test_the_reward_is_a_share_of_as_many_checks_as_there_are(num_checks, passed):
    domain, tasks = verifiers_env.domain("sums", SumTaskset(vf.TasksetConfig()).take(1), num_checks=num_checks)
    record = play(domain, tasks[0], 0, lambda messages: Said("5", Action(answer="5")))
    assert (len(record.rods), sum(record.rods), record.failure) == (num_checks, passed, "")  # 0.7 of them


def test_a_reward_that_breaks_or_is_no_share_is_a_failure():
    class Broken(SumTask):
        @vf.reward
        async def right(self, trace) -> float:
            return 1 / 0

    class Generous(SumTask):
        @vf.reward(weight=7)
        async def right(self, trace) -> float:
            return 1.0

    for kind, words in ((Broken, "division by zero"), (Generous, r"must lie in \[0, 1\]")):
        domain, tasks = verifiers_env.domain("x", taskset_of(kind(Sum(prompt="2 + 3?", answer=5))))
        failure = start_episodes(domain, tasks).act({0: Action(answer="5")})[0]
        assert isinstance(failure, Failure)
        with pytest.raises(AssertionError, match=words):
            raise AssertionError(failure.reason)


def test_what_is_not_played_here_is_refused_by_name():
    class Sets(SumTask):
        async def setup(self, trace, runtime):
            pass

    class Stops(SumTask):
        @vf.stop
        async def enough(self, trace: vf.Trace) -> bool:
            return True

    class Files(SumTask):
        @vf.reward
        async def right(self, trace, runtime) -> float:
            return 1.0

    class Container(SumTask):
        NEEDS_CONTAINER = True

    class Remembers(SumTask):
        @classmethod
        def toolsets(cls, config):
            return [Remembering(vf.ToolsetConfig())]

    data = Sum(prompt="2 + 3?", answer=5)
    for task, words in [
        (Sets(data), "Sets 0 needs a setup hook"),
        (Stops(data), "hooks that stop or change messages"),
        (Files(data), "a runtime to be scored in"),
        (Container(data), "a container"),
        (SumTask(Sum(answer=5)), "a prompt of the user's and the system's words"),
        (SumTask(Sum(answer=5, prompt=[vf.AssistantMessage(content="5")])), "a prompt of the user's"),
        (SumTask(Sum(answer=5, prompt=[vf.UserMessage(content=[PICTURE])])), "a prompt of the user's"),
    ]:
        with pytest.raises(ValueError, match=words):
            verifiers_env.domain("x", taskset_of(task))
    with pytest.raises(RuntimeError, match="Remembering keeps state in a rollout of verifiers"):
        verifiers_env.domain("x", taskset_of(Remembers(data)))

    class Endless(SumTaskset):
        INFINITE = True

    with pytest.raises(ValueError, match=r"Endless has no end: bound it with take\(n\)"):
        verifiers_env.domain("x", Endless(vf.TasksetConfig()))
    assert Calculator(vf.ToolsetConfig()).server_name == "calculator"


# ------------------------------------------------------------------------------------------- out
def agent(url, **limits):
    return vf.Agent(
        vf.AgentConfig(
            harness={"id": OUT},
            runtime=vf.SubprocessConfig(),
            model="toy",
            client=vf.EvalClientConfig(base_url=url, api_key_var="NO_SUCH_KEY"),
            **limits,
        )
    )


def gold_server(handler, body):
    """A model that knows the gold: it finds the task by its words, and makes each turn's calls once."""
    users = [message["content"].split("\n")[-1] for message in body["messages"] if message["role"] == "user"]
    task = next(task for task in TASKS if task.turns[0].user == users[0])
    gold = task.turns[len(users) - 1].gold
    if body["messages"][-1]["role"] == "user" and gold:
        calls = [{"name": call.name, "arguments": json.dumps(call.arguments)} for call in gold]
        answer(handler, completion(None, calls), "tool_calls")
    else:
        answer(handler, completion("Done."), "stop")


def answer(handler, body, reason):
    """With the fields that verifiers insists on."""
    body["choices"][0]["finish_reason"] = reason
    body["usage"]["total_tokens"] = 15
    send(handler, body | {"created": 1, "model": "toy"})


def run(task, url, **limits):
    async def once():
        async with agent(url, **limits) as one:
            return await one.run(task)

    return asyncio.run(once())


@pytest.fixture(scope="module")
def tasks():
    return list(vf.load_taskset(vf.TasksetConfig(id=OUT)))


def test_a_domain_is_a_taskset_and_gold_earns_the_whole_reward(tasks):
    assert [task.data.id for task in tasks] == [task.id for task in TASKS]
    with chat_server(gold_server) as (url, requests):
        for task, own in zip(tasks, TASKS):
            trace = run(task, url)
            assert trace.ok and trace.reward == 1.0 and trace.info["passed"] == [True] * len(own.turns), trace.errors
            assert sum(message.role == "user" for message in trace.messages) == len(own.turns)
            assert trace.num_branches == 1 + len(own.withheld_tools)  # a tool that arrives begins a prompt anew
    assert all(request["tools"] for request in requests)


def test_a_limit_keeps_what_was_decided_and_a_server_that_fails_is_an_error(tasks):
    place = next(place for place, task in enumerate(TASKS) if len(task.turns) > 1)
    with chat_server(gold_server) as (url, _):
        trace = run(tasks[place], url, max_turns=2)
    assert trace.stop_condition == "max_turns" and not trace.errors
    assert trace.reward == pytest.approx(1 / len(TASKS[place].turns))
    with chat_server(lambda handler, body: send(handler, {"error": {"message": "no"}}, 400)) as (url, _):
        trace = run(tasks[place], url)
    assert not trace.ok and trace.errors and trace.reward == 0
