"""Rolls out N tasks G times each: the only code that alternates policy and environment.

    task     -> slot    slot s plays the tasks s, s + slots, ...: each prompt is computed once, for all its rollouts
    rollout  -> row     row r of a slot plays the rollouts r, r + rows, ... of its slot's task, one after the other
    row      speaks     decodes its message in segments of a few tokens, together with all speaking rows
             waits      for its environment, which answers in a thread while other rows speak, unless few could
             listens    reads the answer into its KV cache, in chunks of one fixed width; then it speaks again

A row waits neither for the slowest message nor for the other rollouts of its task.  A slot waits for its task's last
rollout.  Nothing recompiles, except when the longest row needs larger caches.  A row's tokens do not depend on the
schedule: its array row, its shapes and its noise are fixed beforehand.  A rollout whose environment breaks is recorded
and masked; it never raises.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rods_jax.config import RolloutConfig
from rods_jax.environments.foreign import equal
from rods_jax.environments.lanes import Lanes
from rods_jax.environments.protocol import Answer, Failure, Opening, StartEpisodes
from rods_jax.generation import Generator, Sampling, capacities, generator, rollout_keys
from rods_jax.rows import Row, to_batch, to_trajectory
from rods_jax.types import Action, Codec, Policy, RolloutBatch, Step, Task, Trajectory

SEGMENT = 16  # decode steps at most before the host looks
PATIENCE = 1.0  # row-seconds that ready rows wait for the others, per row-second that a segment without them wastes
SHARE = 0.1  # cost of reading a token in a chunk, as a share of the cost of decoding a token


class Player(NamedTuple):
    """All that a rollout needs besides the parameters and the tasks."""

    generator: Generator
    codec: Codec
    sizes: RolloutConfig  # in tokens: max_prompt_tokens, max_suffix_tokens, max_action_tokens, observation_chunk
    group_size: int  # G
    slots: int  # tasks at a time
    rows: int  # rollouts of a task at a time
    columns: int  # rows of a task that listen at a time, one of every rows / columns neighbours
    sampling: Sampling


class Rollouts(NamedTuple):
    """A batch on its way to the device, and the same rollouts as a human reads them."""

    batch: RolloutBatch[np.ndarray]
    trajectories: tuple[Trajectory, ...]  # N * G, task by task
    truncated: int = 0  # by a limit
    generated: int = 0  # tokens of the policy
    read: int = 0  # tokens of prompts, once per task, and of observations
    flops: float | None = None  # that the step needs, as far as the learner counts them
    reasons: Mapping[str, Mapping[str, int]] = MappingProxyType({})  # how often which; see REASONS

    @property
    def failed(self) -> int:
        """How many were failed by their environments."""
        return sum(self.reasons.get("failures", {}).values())


REASONS = {"failures": "failure", "ended": "ended", "blame": "blame"}  # name -> the field of a trajectory


class _Said(NamedTuple):
    """A message that has ended, on its way to an environment."""

    action: Action
    text: str
    stopped: bool  # by the policy itself


def player(
    policy: Policy,
    codec: Codec,
    sizes: RolloutConfig,
    *,
    slots: int,
    group_size: int | None = None,
    num_tokens: int | None = None,
) -> Player:
    """A Player of this policy, with as many rows as `sizes` says; its generator compiles at the first use.

    slots: tasks on the devices at a time.  group_size: rollouts of a task; None: as in `sizes`.  num_tokens: size of
    the tokenizer; ids from there on are never sampled.
    """
    group_size = group_size or sizes.group_size
    rows = min(sizes.concurrent_rollouts or group_size, group_size)
    # The largest divisor of the rows that is at most a quarter of them.
    columns = max(c for c in range(1, max(1, rows // 4) + 1) if rows % c == 0)
    generate = generator(
        policy,
        stop_tokens=codec.stop_tokens,
        group_size=rows,
        suffix_capacity=sizes.max_suffix_tokens,
        max_action_tokens=sizes.max_action_tokens,
        segment=min(SEGMENT, sizes.max_action_tokens),
        columns=columns,
        num_tokens=num_tokens,
    )
    sampling = Sampling(sizes.temperature, sizes.top_p, sizes.top_k)
    return Player(generate, codec, sizes, group_size, slots, rows, columns, sampling)


def collect(
    params: Any,
    tasks: Sequence[Task],
    player: Player,
    *,
    start: StartEpisodes,
    seed: int,
    step: int,
    reward: Callable[[Trajectory], float],
    group_sizes: Sequence[int] | None = None,
) -> Rollouts:
    """Plays every task `player.group_size` times to the end, or as often as `group_sizes` says; rows beyond are not valid.

    start: `start_episodes` of a domain, or of worker processes.  reward: trajectory -> float.  Noise depends only on
    (seed, step, task, rollout, position).  group_sizes: of each task, at least 1.
    """
    sizes = [player.group_size] * len(tasks) if group_sizes is None else group_sizes
    places = [n * player.group_size + g for n, size in enumerate(sizes) for g in range(size)]
    environments = start([tasks[b // player.group_size] for b in places])
    prompts, lengths_N, rows = _start(tasks, dict(zip(places, environments.openings, strict=True)), player)
    keys_NG = rollout_keys(seed, step, [task.id for task in tasks], player.group_size)
    seats = _Seats(params, player, prompts, lengths_N, keys_NG, rows)
    said: dict[int, _Said] = {}  # messages that no environment has got yet
    asked: dict[int, _Said] = {}  # messages whose answer is to come
    waited = 0.0  # decode steps that listening rows have waited, summed over rows
    idled = 0.0  # seconds that ready rows have waited for answers since one of them went on, summed over rows

    with Lanes(environments, places) as lanes:
        while True:
            # Seat the next rollouts where one is over.
            seats.fill()
            speaking = [b for b in seats.taken() if rows[b].speaks]
            listening = [b for b in seats.taken() if rows[b].pending]
            # Send the messages that have ended to their environments, where a lane is free.
            asked |= {b: said.pop(b) for b in lanes.ask({b: one.action for b, one in said.items()})}
            # Take the environments' answers. Rows that can go on wait for them as long as going on alone would cost.
            ready, away = len(speaking) + len(listening), len(asked) + len(said)
            patience = max(0.0, PATIENCE * seats.segment_seconds * away - idled) / ready if ready else None
            began = time.monotonic()
            answers = lanes.answers(patience)
            idled += ready * (time.monotonic() - began)
            if answers:
                _answer(rows, {b: asked.pop(b) for b in answers}, answers, player)
                continue
            idled = 0.0
            # Read a chunk when nobody speaks, or when its readers have waited as many decode steps as it costs.
            if listening and (not speaking or waited >= seats.chunk_costs):
                seats.listen(listening)
                waited = max(0.0, waited - seats.chunk_costs)
            # Else decode a segment of all speaking rows.
            elif speaking:
                spoken = seats.speak(speaking)
                waited += len(listening) * max(len(tokens) for tokens, _, _ in spoken.values())
                said |= _hear(rows, spoken, player)
            elif not lanes and not said and not seats.taken():
                break
    # All rollouts are over: the records for people, and the arrays for the update.
    trajectories = tuple(
        to_trajectory(task, g, rows[n * player.group_size + g])
        for n, task in enumerate(tasks)
        for g in range(player.group_size)
    )
    return Rollouts(
        to_batch(prompts, lengths_N, rows, trajectories, player.sizes.max_suffix_tokens, reward),
        trajectories,
        truncated=sum(t.truncated is not None for t in trajectories),
        reasons=reasons_of(trajectories),
    )


def reasons_of(trajectories: Sequence[Trajectory]) -> dict[str, dict[str, int]]:
    return {
        name: dict(Counter(value for one in trajectories if (value := getattr(one, field))))
        for name, field in REASONS.items()
    }


def summed(parts: Sequence[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    """The reasons of several batches."""
    return {name: dict(sum((Counter(part.get(name, {})) for part in parts), Counter())) for name in REASONS}


@dataclass
class _Seats:
    """Which rollout (b = n * G + g) sits in which array row, and the state of all rows on the device."""

    params: Any
    player: Player
    prompts_NP: np.ndarray
    lengths_N: np.ndarray
    keys_NG: jax.Array
    rows: Sequence[Row]

    def __post_init__(self) -> None:
        slots, rows, num_tasks = self.player.slots, self.player.rows, len(self.prompts_NP)
        self.task = [n if n < num_tasks else None for n in range(slots)]  # of each slot
        self.seat = np.full((slots, rows), -1)  # the rollout of each row; -1: none
        self.capacities = list(capacities(self.player.sizes.max_suffix_tokens))
        self.chunk_costs = SHARE * slots * self.player.columns * self.player.sizes.observation_chunk
        self.segment_seconds = 0.0  # of the latest one; at most a second, for it may have been compiled
        self.key_data_NG = np.asarray(jax.random.key_data(self.keys_NG))
        # Slot s begins with task s, and row r with its rollout r; slots without a task stay empty.
        used = min(slots, num_tasks)
        prompts = np.zeros((slots, self.prompts_NP.shape[1]), np.int32)
        lengths = np.ones(slots, np.int32)
        prompts[:used], lengths[:used] = self.prompts_NP[:used], self.lengths_N[:used]
        self.seat[:used] = np.arange(used)[:, None] * self.player.group_size + np.arange(rows)
        self.episodes = self.player.generator.start(self.params, prompts, lengths, self.keys())

    def keys(self) -> jax.Array:
        """The keys of the rollouts that sit in the rows, `[slots, rows]`."""
        n, g = np.divmod(np.maximum(self.seat, 0), self.player.group_size)
        return jax.random.wrap_key_data(jnp.asarray(self.key_data_NG[n, g]))

    def taken(self) -> list[int]:
        """The rollouts that sit, in the order of their array rows."""
        return self.seat[self.seat >= 0].tolist()

    def fill(self) -> None:
        """Seats a task's next rollout where one is over, and a slot's next task where all rollouts of one are over."""
        group, fresh = self.player.group_size, np.zeros(self.seat.shape, bool)
        for slot, n in enumerate(self.task):
            # Find the slot's task, and prefill its prompt if it is a new one.
            first = n
            while n is not None and all(row.done for row in self.rows[n * group : (n + 1) * group]):
                n = n + self.player.slots if n + self.player.slots < len(self.prompts_NP) else None
            self.task[slot] = n
            if n is None:
                self.seat[slot] = -1
                continue
            if n != first:
                self.seat[slot] = n * group + np.arange(self.player.rows)
                prompt = self.prompts_NP[n], self.lengths_N[n], self.keys()[slot]
                self.episodes = self.player.generator.admit(self.params, self.episodes, np.int32(slot), *prompt)
            # Each rollout's row is fixed beforehand: the order in which rollouts end changes no number.
            for row, b in enumerate(self.seat[slot].tolist()):
                while b >= 0 and self.rows[b].done:
                    b = b + self.player.rows if b + self.player.rows < (n + 1) * group else -1
                    fresh[slot, row] = b >= 0
                self.seat[slot, row] = b
        if fresh.any():
            self.episodes = self.player.generator.renew(self.episodes, fresh, self.keys())

    def speak(self, speaking: Sequence[int]) -> dict[int, tuple[list[int], list[float], bool]]:
        """Decodes a segment of the speaking rows: (tokens, log-probabilities, is the message over) of each."""
        self._make_room(len(self.rows[b].tokens) + SEGMENT for b in speaking)
        active_NG, began = np.isin(self.seat, speaking), time.monotonic()
        generated, self.episodes = self.player.generator.act(
            self.params, self.episodes, active_NG, self.player.sampling
        )
        columns = [x[active_NG].tolist() for x in jax.device_get(generated)]
        self.segment_seconds = min(1.0, time.monotonic() - began)
        return {
            b: (tokens[:length], log_probs[:length], ended)
            for b, tokens, log_probs, length, ended in zip(self.seat[active_NG].tolist(), *columns, strict=True)
        }

    def listen(self, listening: Sequence[int]) -> None:
        """Reads one chunk in every column: that of the listening row with the fewest pending tokens."""
        slots, columns, chunk = self.player.slots, self.player.columns, self.player.sizes.observation_chunk
        width = self.player.rows // columns
        # A column in which nobody listens extends its first row by 0 tokens.
        rows_NC = np.broadcast_to(np.arange(columns, dtype=np.int32) * width, (slots, columns)).copy()
        tokens_NCT, lengths_NC = np.zeros((slots, columns, chunk), np.int32), np.zeros((slots, columns), np.int32)
        seats, listens = self.seat.tolist(), np.isin(self.seat, listening)
        heard = []
        for slot, column in np.ndindex(slots, columns):
            ready = [row for row in range(column * width, (column + 1) * width) if listens[slot, row]]
            if ready:
                chosen = min(ready, key=lambda row: len(self.rows[seats[slot][row]].pending))
                row = self.rows[seats[slot][chosen]]
                part, row.pending = row.pending[:chunk], row.pending[chunk:]
                row.append(part, False)
                heard.append(len(row.tokens))
                rows_NC[slot, column] = chosen
                tokens_NCT[slot, column, : len(part)] = part
                lengths_NC[slot, column] = len(part)
        self._make_room(heard)
        self.episodes = self.player.generator.observe(self.params, self.episodes, rows_NC, tokens_NCT, lengths_NC)

    def _make_room(self, lengths) -> None:
        """Grows all caches to the smallest size that holds rows of these lengths."""
        needed = min(max(lengths), self.player.sizes.max_suffix_tokens)
        if needed > self.capacities[0]:
            self.capacities = [size for size in self.capacities if size >= needed]
            self.episodes = self.player.generator.grow(self.episodes, self.capacities[0])


def _start(
    tasks: Sequence[Task], openings: Mapping[int, Opening | Failure], player: Player
) -> tuple[np.ndarray, np.ndarray, list[Row]]:
    """Prompts, once per task, and N * G rows.  A rollout that has no environment is over at once."""
    group_size, limit = player.group_size, player.sizes.max_prompt_tokens
    prompts = np.zeros((len(tasks), limit), np.int32)
    lengths_N = np.ones(len(tasks), np.int32)
    rows = []
    for n, task in enumerate(tasks):
        group = [openings[b] for b in range(n * group_size, (n + 1) * group_size) if b in openings]
        opening = next((one for one in group if isinstance(one, Opening)), None)
        failures = [_fault(one, opening) for one in group]
        if opening is not None:
            try:
                tokens = player.codec.encode_prompt(opening.tools, opening.user, opening.policy, opening.greeting)
                if len(tokens) > limit:
                    raise ValueError(f"the prompt has {len(tokens)} tokens, more than the limit of {limit}")
                prompts[n, : len(tokens)] = tokens
                lengths_N[n] = len(tokens)
            except Exception as error:  # the environment's fault, not the policy's: the group is recorded and masked
                failures = [_reason(error)] * len(group)
        num_checks, lines = (opening.num_checks, opening.lines) if opening is not None else (1, ())
        rows += [Row(num_checks, done=failure is not None, failure=failure, lines=lines) for failure in failures]
        rows += [Row(num_checks, done=True, played=False) for _ in range(group_size - len(group))]
    return prompts, lengths_N, rows


def _fault(one: Opening | Failure, shared: Opening | None) -> str | None:
    """Why a rollout cannot be played, or None."""
    if isinstance(one, Failure):
        return one.reason
    return (
        None if equal(one, shared) else "the world began this rollout otherwise than the prompt that its group shares"
    )


def _hear(rows: Sequence[Row], spoken: Mapping[int, tuple], player: Player) -> dict[int, _Said]:
    """Appends a segment's tokens to their rows; returns the messages that have ended."""
    said, codec = {}, player.codec
    for b, (tokens, log_probs, ended) in spoken.items():
        row = rows[b]
        row.append(tokens, True, log_probs)
        row.message += tokens
        if ended:
            stopped, text = row.message[-1] in codec.stop_tokens, codec.decode(row.message)
            full = len(row.tokens) >= player.sizes.max_suffix_tokens
            too_long = (
                _too_long(player) if full else f"the message is longer than {player.sizes.max_action_tokens} tokens"
            )
            said[b] = _Said(codec.parse(text) if stopped else Action(error=too_long), text, stopped)
            row.message, row.waits = [], True
    return said


def _answer(
    rows: Sequence[Row], said: Mapping[int, _Said], answers: Mapping[int, Answer | Failure], player: Player
) -> None:
    """Queues the environments' answers to be read, or ends the episode."""
    codec, limit = player.codec, player.sizes.max_suffix_tokens
    for b, answer in answers.items():
        row, (_, text, stopped) = rows[b], said[b]
        row.waits = False
        if isinstance(answer, Failure):
            row.done, row.failure = True, answer.reason
            continue
        try:
            observed = [] if answer.done else codec.encode_messages(answer.messages)
        except Exception as error:
            row.done, row.failure = True, _reason(error)
            continue
        row.steps.append(Step(row.turn, text, answer.code, answer.observations, len(answer.lines)))
        row.lines += answer.lines
        row.turn += sum(message.role == "user" for message in answer.messages)
        row.passed += answer.passed
        if len(row.passed) > row.num_checks:
            row.done, row.failure = True, f"the world decided more than the {row.num_checks} checks that it has"
            continue
        row.done, row.ended, row.blame = answer.done, answer.ended, answer.blame
        # A message that was cut at its limit gets its stop token before the answer.
        row.pending = [] if row.done else ([] if stopped else [codec.stop_token]) + observed
        # Where the world says that it is over, the limit ends an episode only if it cut off its last message.
        if len(row.tokens) + len(row.pending) >= limit and not (row.done and stopped):
            row.done, row.truncated, row.pending = True, _too_long(player), []


def _too_long(player: Player) -> str:
    return f"the episode is longer than {player.sizes.max_suffix_tokens} tokens"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
