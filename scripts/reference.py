"""Writes the generated pages of docs/reference/: every key of the configuration, and the public functions.

    python -m scripts.reference

A key's meaning is the comment behind it.  tests/test_docs.py fails where a committed page differs from what this writes.
"""

import ast
import dataclasses
import importlib
import inspect
import io
import textwrap
import tokenize
from pathlib import Path
from typing import Any, NamedTuple

from models.decoder import DecoderConfig, LoraConfig
from models.families import Pretrained
from models.rotary import RopeScaling
from rods_jax import config
from rods_jax.evolution.evolve import Pace
from rods_jax.evolution.settings import EvolutionConfig

PAGES = Path(__file__).parent.parent / "docs" / "reference"
SECTIONS = {  # where the keys of a class stand
    "": config.Config,
    "rollout": config.RolloutConfig,
    "update": config.UpdateConfig,
    "replay": config.ReplaySettings,
    "stages.I": config.StageConfig,
    "evaluation": config.EvaluationConfig,
    "synthesis": config.SynthesisConfig,
    "retention": config.RetentionConfig,
    "cold_start": config.ColdStartConfig,
    "cold_start.habits": config.Habits,
    "model": DecoderConfig,
    "model (a checkpoint)": Pretrained,
    "model.lora": LoraConfig,
    "model.rope_scaling": RopeScaling,
    "An evolution (scripts.evolve)": EvolutionConfig,
    "An evolution's pace": Pace,
}
FUNCTIONS = {  # what a script of one's own takes, by what it is for
    "A run": "run.check run.train run.evaluate run.Evaluation run.report run.on_one_device run.Learner",
    "Kernels": "group_statistics segment_group_statistics GroupStatistics log_probs LogProbs boundary_score partition "
    "select_seeds Seeds Evidence Detection",
    "Signals": "boundary.mean_band boundary.split_band boundary.observed_variance boundary.beta_posterior boundary.informative "
    "boundary.reward_entropy boundary.binary_band boundary.any_task boundary.coevolve",
    "Samplers": "samplers.drawn samplers.equal samplers.difficulty_pools samplers.thompson samplers.learnability "
    "samplers.variance_priority samplers.recycling samplers.prompt_replay samplers.nearest_half samplers.by_difficulty replay.Table",
    "Filters": "filtering.mixed filtering.differing filtering.varied filtering.unsolved group_statistics.max_variance",
    "The update": "grpo.update_step grpo.jit_update grpo.create_state grpo.create_optimizer grpo.Feedback "
    "grpo.token_ratio grpo.sequence_ratio grpo.sequence_mean grpo.token_mean grpo.group_mean grpo.whole_of types.RolloutBatch types.Standing",
    "Rollouts": "rollout.player rollout.collect rollout.Rollouts run.stages.trim types.Policy types.Codec",
    "Rewards": "rewards.progress_reward rewards.outcome_reward rewards.format_reward rewards.gated_reward "
    "rewards.efficient_reward types.Trajectory",
    "The pool": "replay.create replay.begin_epoch replay.epoch_batches replay.standing replay.learn replay.stage "
    "replay.counts",
    "Tasks and worlds": "types.Task types.World types.Turn types.Call environments.toolkit.domain "
    "environments.protocol.Domain environments.gold.check_gold environments.mixture.mixture environments.mixture.mixed "
    "environments.episode.start_episodes environments.protocol.TaskSplits environments.protocol.Opening "
    "environments.protocol.Answer environments.protocol.EpisodeBatch environments.protocol.Closing "
    "environments.protocol.Rules task_files.read_tasks task_files.write_tasks",
    "Conversations": "environments.conversation.conversations environments.conversation.Conversation "
    "environments.conversation.Heard environments.conversation.Spoken environments.conversation.Ended "
    "environments.protocol.Reading environments.protocol.Slip environments.users.model_user dialogue_files.recorded",
    "Language models": "chat.Endpoint chat.http_generate chat.Request chat.Reply",
    "Synthesis": "synthesis.pipeline.author_tasks synthesis.pipeline.five_stages synthesis.author.Order "
    "synthesis.author.orders_of synthesis.author.Synthesis synthesis.attempt.Rejection synthesis.courier.dispatch.at_once "
    "synthesis.offline.with_offline_pool",
    "Tasks of other kinds": "synthesis.targets.tasks_for synthesis.workflows.matches synthesis.workflows.tasks_from "
    "synthesis.templates.Template synthesis.templates.tasks_of synthesis.difficulty.climb synthesis.difficulty.chains "
    "synthesis.diversity.diversity synthesis.committee.committee environments.unreliable.with_failures",
    "Evolution": "environments.checker.Checker environments.checker.decided evolution.ground.Ground "
    "evolution.ground.of_toolkit evolution.roles.Roles evolution.evolve.evolve evolution.author.accepted_tasks",
    "Codecs": "codecs.qwen.qwen_codec codecs.llama.llama_codec codecs.python_list.python_list_codec "
    "codecs.tokenizer.train_tokenizer codecs.tokenizer.checkpoint_tokenizer",
    "Files": "checkpoint.open_checkpoints run.positions.save_position run.positions.restore_position "
    "metrics.open_metrics metrics.read_metrics",
}


class Key(NamedTuple):
    name: str
    kind: str
    default: str
    meaning: str


def keys_of(kind: type) -> list[Key]:
    """The fields of a dataclass or NamedTuple, in their order."""
    source = textwrap.dedent(inspect.getsource(kind))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
    fields = [(node, after) for node, after in zip(body, [*body[1:], None]) if isinstance(node, ast.AnnAssign)]
    return [
        Key(
            node.target.id,
            ast.unparse(node.annotation),
            _default(kind, node),
            comments.get(node.end_lineno or 0) or _text(after),
        )
        for node, after in fields
        if isinstance(node.target, ast.Name)
    ]


def _text(node: ast.stmt | None) -> str:
    """The text that stands as a statement of its own: what a command's option says of itself."""
    value = node.value if isinstance(node, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def _default(kind: type, node: ast.AnnAssign) -> str:
    if node.value is None:
        return "required"
    if dataclasses.is_dataclass(kind):
        (item,) = (item for item in dataclasses.fields(kind) if item.name == node.target.id)  # type: ignore[union-attr]
        if item.default is dataclasses.MISSING:
            return f"`{item.default_factory.__name__}()`"  # type: ignore[union-attr]
        value: Any = item.default
        return f"`{value.__name__}`" if callable(value) else f"`{value!r}`"
    return f"`{ast.unparse(node.value)}`"


def configuration() -> str:
    """The page of the keys."""
    lines = [
        "# Every key of the configuration", "",
        "A configuration is a Python file that ends in `CONFIG = Config(...)`. On the command line a key is its dotted",
        "name with dashes: `--rollout.group-size 4`, `--stages.0.epochs 2`. A value of the wrong type or range is refused",
        "by name before anything is computed. A function is set in the file alone, and so is a section that is `None` there.", "",
        "This page is generated: `python -m scripts.reference`.", "",
    ]  # fmt: skip
    for where, kind in SECTIONS.items():
        summary = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
        lines += [f"## {where or 'Config'}", "", summary, "", "| key | type | default | meaning |", "|---|---|---|---|"]
        for key in keys_of(kind):
            cells = (f"`{key.name}`", f"`{key.kind}`", key.default, key.meaning)
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        lines.append("")
    return "\n".join(lines)


def functions() -> str:
    """The page of the functions."""
    lines = [
        "# Public functions, with their shapes", "",
        "The letters behind a name are its shape: `rewards_NG` is `[N, G]`, N tasks and G rollouts of each. P is prompt",
        "tokens, S suffix tokens, V the vocabulary, D the width and B rows without groups.", "",
        "This page is generated: `python -m scripts.reference`.", "",
    ]  # fmt: skip
    for title, names in FUNCTIONS.items():
        lines += [f"## {title}", ""]
        for name in names.split():
            lines += [f"### rods_jax.{name}", "", "```text", _shown(f"rods_jax.{name}"), "```", ""]
    return "\n".join(lines)


def _shown(name: str) -> str:
    """A signature and its docstring, as written."""
    place, _, last = name.rpartition(".")
    thing = getattr(importlib.import_module(place), last)
    text = textwrap.indent(inspect.getdoc(thing) or "", "    ")
    node = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]
    if isinstance(node, ast.FunctionDef):
        result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f"{last}({ast.unparse(node.args)}){result}\n\n{text}"
    fields = "\n".join(
        f"    {k.name}: {k.kind}{_given(k.default)}{k.meaning and '  # ' + k.meaning}" for k in keys_of(thing)
    )
    return f"class {last}\n\n{text}\n\n{fields}"


def _given(default: str) -> str:
    """As it stands in a class; nothing where a value is required."""
    return "" if default == "required" else f" = {default.strip('`')}"


def main() -> None:
    for name, text in {"configuration": configuration(), "functions": functions()}.items():
        (PAGES / f"{name}.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
