"""The records that travel round the loop.

Dimension key, used as suffix of array names everywhere (`rewards_NG`):

    N tasks in a batch      G rollouts per task     P prompt tokens
    S suffix tokens (all after the shared prompt: generated and observed)
    V vocabulary            D model width
    L layers                H query heads           K key/value heads
    F feed-forward          T tokens in a chunk     B rows without group structure

Host records are frozen dataclasses of plain JSON values; device records are
NamedTuples of arrays, hence pytrees.  Records have no behaviour: each
function lives in the file that owns its computation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np

Json = Any  # None, bool, int, float, str, or lists and string-keyed dicts of them
MEASURED = "measured"  # option of a world whose task is of a public test split: nobody trains on it
SCALARS = type(None), bool, int, float, str  # those that hold no others


# --------------------------------------------------------------------------- host records
@dataclass(frozen=True)
class ToolSpec:
    """A tool as the policy sees it: JSON schema of its arguments and of its response."""

    name: str
    description: str
    parameters: Mapping[str, Json]  # {"type": "object", "properties": {...}, "required": [...]}
    class_name: str
    response: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One tool call; positional arguments are resolved to names where text becomes calls."""

    name: str
    arguments: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Observation:
    """A call's result: text as it is, a dict or an object like one as JSON, anything else as str(x)."""

    text: str
    ok: bool = True  # False: unknown or hidden tool, wrong arguments, or an exception


@dataclass(frozen=True)
class Turn:
    """One user turn. An empty `gold` asks for a plain answer and no call (RODS 1.1)."""

    user: str
    gold: tuple[Call, ...] = ()
    released_tools: tuple[str, ...] = ()  # withheld tools that arrive with this turn's message


@dataclass(frozen=True)
class World:
    """What a task's tools start from."""

    classes: tuple[str, ...]
    state: Mapping[str, Json] = field(default_factory=dict)  # by class; a missing one starts in its default
    options: Mapping[str, Json] = field(default_factory=dict)  # of the domain: {"long_context": True} is BFCL's


@dataclass(frozen=True)
class Task:
    """A multi-turn task: its world, user turns, and the gold calls of each turn."""

    id: str
    scenario: str  # leak-safe key: no train / held-out split may cross it
    category: str  # the stratum: one of its domain's
    world: World
    turns: tuple[Turn, ...]
    ancestry: tuple[str, ...] = ()  # ids from the human seed down to the parent; empty: human

    @property
    def withheld_tools(self) -> frozenset[str]:
        """Tools that are invisible until the turn that releases them."""
        return frozenset(name for turn in self.turns for name in turn.released_tools)


@dataclass(frozen=True)
class Message:
    """A message to the policy; role is `user` or `tool`, before the first user message also `system` or `assistant`."""

    role: str
    content: str
    tools: tuple[ToolSpec, ...] = ()  # tools that become available with this message


@dataclass(frozen=True)
class Action:
    """One parsed assistant message: some calls, a plain answer, or an error; calls beside an error could be read."""

    calls: tuple[Call, ...] = ()
    answer: str = ""
    error: str | None = None


@dataclass(frozen=True)
class Line:
    """A line of a conversation: a message of either side, or the result of one of its calls."""

    who: str  # "agent" or "user"; of a result, who called
    text: str = ""
    calls: tuple[Call, ...] = ()
    result: bool = False
    ok: bool = True  # of a result

    @property
    def is_words(self) -> bool:
        """Whether the other side hears it: text beside calls is never shown to it."""
        return not self.result and not self.calls


@dataclass(frozen=True)
class Step:
    """One assistant action and what came back, kept for reading and for the format reward."""

    turn: int  # user messages before it, the first left out
    text: str
    code: int  # diagnostic event code, RODS 1.2
    observations: tuple[str, ...] = ()
    num_lines: int = 0  # of its conversation that it added


@dataclass(frozen=True)
class Trajectory:
    """One rollout as a human reads it; its tokens are in the RolloutBatch."""

    task_id: str
    rollout: int
    passed: tuple[bool, ...]  # every check of its world; an undecided one is False
    steps: tuple[Step, ...]
    truncated: str | None = None  # which limit ended the episode early
    failure: str | None = None  # infrastructure failure: recorded, and masked in the update
    ended: str = ""  # why a conversation ended (environments/conversation.py); empty in other worlds
    blame: str = ""  # who caused a conversation's failure: "agent" or "user"; empty: it passed, or nobody judged
    lines: tuple[Line, ...] = ()  # of a conversation: all of both sides, first what preceded the first step
    gold_calls: int = 0  # that the task's gold makes; 0: its gold makes none, or it has none to compare with
    played: bool = True  # False: its group is smaller than the largest; nothing of it counts


# ------------------------------------------------------------------- callables passed around
class Codec(NamedTuple):
    """Text format of one model family.  No function of it evaluates text."""

    encode_prompt: Callable[..., list[int]]  # (tools, first user message, policy="", greeting="")
    encode_messages: Callable[[Sequence[Message]], list[int]]  # after a stop token, up to the next assistant header
    encode_action: Callable[[Sequence[Call], str], list[int]]  # (calls, answer), ends in stop_tokens[0]
    decode: Callable[[Sequence[int]], str]
    parse: Callable[[str], Action]
    official: Callable[[str], Action]  # as the leaderboard's own handler reads
    stop_tokens: tuple[int, ...]  # the first is the template's own end of a message

    @property
    def stop_token(self) -> int:
        """The token that is appended to a message that was cut off."""
        return self.stop_tokens[0]


class Policy(NamedTuple):
    """All that rods_jax asks of a model; `params` and the caches are pytrees it never opens."""

    init: Callable[..., Any]  # (key) -> params
    forward: Callable[..., jax.Array]  # (params, prompt_tokens_NP, prompt_lengths_N, suffix_tokens_NGS) -> hidden_NGSD
    unembedding: Callable[..., jax.Array]  # (params) -> unembedding_VD
    prefill: Callable[..., Any]  # (params, prompt_tokens_NP, prompt_lengths_N, suffix_tokens) -> (hidden_ND, prompts)
    empty: Callable[..., Any]  # (num_tasks, group_size, capacity) -> suffixes: arrays [N,G,...] that grow by padding
    extend: Callable[
        ..., Any
    ]  # (params, prompts, suffixes, seen_NG, tokens_NGT, lengths_NG, rows_NC=None) -> (hidden_NGTD, suffixes)
    gather: Callable[[jax.Array], jax.Array] = lambda x: x  # to every device that holds a part of the vocabulary
    chunk_size: int = 1024  # tokens whose logits exist at a time


# ------------------------------------------------------------------------- device records
Array = TypeVar("Array", jax.Array, np.ndarray)  # of a batch: numpy's on the host, jax's on the device


class RolloutBatch(NamedTuple, Generic[Array]):
    """A group-shared batch: each prompt is stored once, its G suffixes beside it."""

    prompt_tokens_NP: Array  # int32, padded on the right
    prompt_lengths_N: Array  # int32
    suffix_tokens_NGS: Array  # int32, padded on the right
    suffix_lengths_NG: Array  # int32
    action_mask_NGS: Array  # bool, True where the policy generated the token
    behavior_log_probs_NGS: Array  # float32, recorded when sampled
    rewards_NG: Array  # float32
    valid_NG: Array  # bool, False where the infrastructure failed
    passed_NG: Array  # int32, checks that each rollout passed
    checks_N: Array  # int32, of each of the task's rollouts


class Dropped(NamedTuple):
    """What was measured of a task that the step does not learn from."""

    task_id: str
    passed: int
    total: int
    low: int  # fewest checks that a valid rollout passed
    high: int
    checks: int  # of each rollout
    mean: float  # of the reward over valid rollouts
    variance: float


class Standing(NamedTuple, Generic[Array]):
    """What the pool knows of a batch's tasks (`replay.standing`)."""

    categories_N: Array  # int32, index into the domain's strata
    eligible_N: Array  # bool, may be selected as a seed
    earlier_passed_N: Array  # float32, checks passed in earlier steps, discounted by age
    earlier_total_N: Array  # float32, all checks of those rollouts, discounted alike
    best_before_N: (
        Array  # float32, largest share of the checks that a rollout passed in earlier steps; 0: none was played
    )
    weights_N: Array  # float32, of each task's advantages in the loss; 1 as a rule


Fields = TypeVar("Fields", RolloutBatch, Standing)


class TrainState(NamedTuple):
    """All that the update changes."""

    params: Any
    reference_params: Any
    optimizer_state: Any
    step: jax.Array  # int32 scalar
