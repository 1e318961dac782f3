"""Workflows in plain text become outlines of tasks (GEM, arXiv 2601.10355), by rules and without a model.

    tasks_from(domain, "1. Add the book\\n2. Lend it to a reader\\n3. Work out the fine", count=10, rng=...)

A step is an item of a numbered or bulleted list.  It becomes the tool whose name, description and phrases share the
most telling words with it.  The rules know no synonyms, read no tables and no prose without a list, and take a step for
one call.  What no tool resembles is named, never guessed: look at `matches` first.
"""

import math
import random
import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.outline import outline, realise
from rods_jax.synthesis.values import words
from rods_jax.types import Task

ALIKE = 0.25  # cosine from which on a tool is taken for a step
_ITEM = re.compile(r"^\s*(?:\(?\d{1,3}[.):]|[-*+\u2022]|step\s+\d{1,3}[.:)]?)\s+(.+)$", re.IGNORECASE)


class Match(NamedTuple):
    """A step of a text, and the tool that it became; "": none resembles it."""

    step: str
    tool: str
    similarity: float  # to the most similar tool, in [0, 1]


def steps_of(text: str) -> tuple[str, ...]:
    """The items of the text's lists, in order; an indented line goes on with the item before it."""
    steps: list[str] = []
    open_item = False
    for line in text.splitlines():
        if item := _ITEM.match(line):
            steps.append(item[1].strip())
        elif open_item and line[:1].isspace() and line.strip():
            steps[-1] += " " + line.strip()
        open_item = bool(item) or open_item and line[:1].isspace() and bool(line.strip())
    return tuple(steps)


def matches(domain: Domain, text: str) -> tuple[Match, ...]:
    """The tool of each step, by the cosine of their words; a word counts log(tools / tools that hold it)."""
    own = {name: _terms(_about(domain, name)) for name in domain.tools}
    holders = Counter(term for terms in own.values() for term in terms)
    weights = {term: math.log((1 + len(own)) / count) for term, count in holders.items()}

    def match(step: str) -> Match:
        terms = _terms(step)
        similarities = {name: _cosine(terms, others, weights) for name, others in own.items()}
        best = max(similarities, key=lambda name: similarities[name])
        return Match(step, best if similarities[best] >= ALIKE else "", similarities[best])

    return tuple(map(match, steps_of(text)))


def tasks_from(domain: Domain, text: str, *, count: int, rng: random.Random, name: str = "workflow") -> list[Task]:
    """Tasks that do the steps of the text in order, a turn for each.

    ValueError: the text has no list, a step resembles no tool, or as for `realise`.  RuntimeError: as for `realise`.
    """
    found = matches(domain, text)
    if not found:
        raise ValueError("the text has no numbered or bulleted list: a workflow is a list of steps")
    if unknown := next((one for one in found if not one.tool), None):
        raise ValueError(f"no tool of {domain.name} resembles the step {unknown.step[:80]!r}")
    drawn = outline(domain, [(one.tool,) for one in found])
    return realise(domain, lambda: drawn, name=name, count=count, rng=rng)


def _about(domain: Domain, name: str) -> str:
    return " ".join((words(name), domain.tools[name].description, *domain.phrases.get(name, ())))


def _terms(text: str) -> frozenset[str]:
    """Words of at least three letters, in lower case and without the endings of verbs and plurals."""
    text = re.sub(r"\{\w*\}", " ", text.lower())
    return frozenset(re.sub(r"(?<=..)(?:ing|es|ed|s|e)$", "", word) for word in re.findall(r"[^\W\d_]{3,}", text))


def _cosine(a: frozenset[str], b: frozenset[str], weights: Mapping[str, float]) -> float:
    """Of binary vectors; what no tool says has no weight."""
    length = lambda terms: math.sqrt(sum(weights.get(term, 0.0) ** 2 for term in terms))
    shared = sum(weights[term] ** 2 for term in a & b)
    return shared / (length(a) * length(b)) if shared else 0.0
