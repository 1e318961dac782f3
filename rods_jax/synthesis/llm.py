"""Roles for the pipeline that ask language models; each may have a backend of its own.

    roles = llm_roles(dict.fromkeys(ROLES, http_generate(Endpoint(url="http://localhost:8000/v1", model="..."))))
    synthesize(domain, seed, roles=roles, ...)

Text of a model is only ever read, as tags and JSON; nothing here evaluates it.
The paper's ablations of synthesis are roles too: `without_rewrite`, `without_narrative`, `without_feedback`.
Leave a role to the rules with `roles._replace(judge=RULE_BASED.judge)`.
"""

from collections.abc import Mapping
from functools import partial

from rods_jax.chat import Generate
from rods_jax.synthesis import llm_execute, llm_judge, llm_plan, llm_word
from rods_jax.synthesis.ask import Prompt, asker, load_prompts
from rods_jax.synthesis.attempt import Attempt
from rods_jax.synthesis.critique import GATES
from rods_jax.synthesis.execute import Execution
from rods_jax.synthesis.pipeline import RULE_BASED, Roles
from rods_jax.synthesis.plan import Plan
from rods_jax.synthesis.told import numbers_are_told, value_is_withheld


def llm_roles(backends: Mapping[str, Generate], prompts: Mapping[str, Prompt] | None = None) -> Roles:
    """Every stage by a language model; the keys of `backends` are ask.ROLES.

    ValueError: a role has no backend, or a prompt file lacks or is broken.
    """
    ask = asker(backends, prompts or load_prompts())
    return Roles(
        plan=partial(llm_plan.plan, ask),
        execute=partial(llm_execute.execute_by_model, ask),
        rewrite=partial(llm_word.rewrite_by_model, ask),
        augment=partial(llm_word.withhold, ask),
        gates=(*GATES, numbers_are_told, value_is_withheld),
        judge=partial(llm_judge.judge, ask),
        refine=partial(llm_judge.refine, ask),
        patch=partial(llm_judge.patch, ask),
    )


def without_rewrite(backends: Mapping[str, Generate]) -> Roles:
    """`llm_roles`, but no rewrite of the whole dialogue (ablation: no coherence rewrite)."""
    return llm_roles(backends)._replace(rewrite=keep_queries)


def without_narrative(backends: Mapping[str, Generate]) -> Roles:
    """`llm_roles`, but functions drawn by the rules, and no story (ablation: no narrative planning)."""
    return llm_roles(backends)._replace(plan=RULE_BASED.plan)


def without_feedback(backends: Mapping[str, Generate]) -> Roles:
    """`llm_roles`, but each attempt begins as if it were the first (ablation: no feedback loop)."""
    return llm_roles(backends)._replace(recall=lambda history: (), patch=RULE_BASED.patch)


def keep_queries(attempt: Attempt, plan: Plan, execution: Execution) -> tuple[str, ...]:
    """Each turn as it was worded when it ran, with no eye for the turns around it."""
    return execution.queries
