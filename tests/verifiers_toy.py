"""Environments of verifiers, as their users write them: one of its own to be played here, one made of a domain."""

import verifiers.v1 as vf
from rollout_toy import TASKS

from rods_jax.adapters.verifiers_env import exported
from rods_jax.environments.workplace import WORKPLACE


class Sum(vf.TaskData):
    answer: int


class Notes(vf.State):
    seen: int = 0


class Calculator(vf.Toolset[vf.ToolsetConfig, vf.State]):
    """A tool server."""

    async def setup_task(self, task):
        self.task = task

    @vf.tool
    async def add(self, a: int, b: int) -> str:
        """Adds two numbers."""
        if a < 0:
            raise ValueError("no number below 0")
        return str(a + b)

    @vf.tool
    def hint(self) -> str:
        """Tells the answer."""
        return str(self.task.answer)


class Remembering(vf.Toolset[vf.ToolsetConfig, Notes]):
    """A tool server with a state that a rollout shares."""

    @vf.tool
    def look(self) -> str:
        """Looks."""
        return ""


class SumTask(vf.Task[Sum, vf.State, vf.TaskConfig]):
    @classmethod
    def toolsets(cls, config):
        return [Calculator(vf.ToolsetConfig())]

    @vf.reward(weight=0.7)
    async def right(self, trace) -> float:
        return float(trace.last_reply == str(self.data.answer))

    @vf.reward(weight=0.3)
    async def used_a_tool(self, trace) -> float:
        return float(any(message.content == str(self.data.answer) for message in trace.tool_messages))

    @vf.metric
    async def turns(self, trace) -> float:
        return trace.num_turns


class SumTaskset(vf.Taskset[SumTask, vf.TasksetConfig]):
    def load(self):
        for a, b in ((2, 3), (40, 2)):
            yield SumTask(Sum(id=f"{a}+{b}", prompt=f"{a} + {b}?", system_prompt="Be brief.", answer=a + b))


DomainTaskset, DomainHarness = exported(WORKPLACE, TASKS)
__all__ = ["DomainHarness", "DomainTaskset"]
