"""Tasks whose gold ends in a given tool, along the graph of what tools return and take (FunReason-MT, arXiv 2510.24645).

    tasks_for(domain, "deposit_cash", count=20, rng=random.Random(0))

A walk goes back from the tool: to one that returns what it takes, from there to the next.  So a tool that the policy
lacks is practised at the end of the chains that lead to it.  Words are templates', not a model's.
"""

import random

from rods_jax.environments.protocol import Domain
from rods_jax.synthesis.outline import Outline, realise
from rods_jax.synthesis.plan import flowing
from rods_jax.types import Task


def tasks_for(domain: Domain, tool: str, *, count: int, rng: random.Random, depth: int = 3) -> list[Task]:
    """Tasks whose last gold call is `tool`, each a chain of at most `depth` calls, a value flowing from each to the next.

    Short chains are more frequent than long ones, which more often cannot be executed and are drawn again.
    ValueError: the domain lacks the tool, or as for `realise`.  RuntimeError: as for `realise`.
    """
    if tool not in domain.tools:
        raise ValueError(f"{domain.name} has no tool {tool}")
    if depth < 1:
        raise ValueError(f"the depth of a chain is at least 1: got {depth}")
    return realise(domain, lambda: walk(domain, tool, rng, depth), name=tool, count=count, rng=rng)


def walk(domain: Domain, tool: str, rng: random.Random, depth: int) -> Outline:
    """A random chain of different tools that ends in `tool`, cut into turns of one or two calls."""
    chain = [tool]
    for _ in range(rng.randint(1, depth) - 1):
        target = domain.tools[chain[0]]
        producers = [name for name, one in domain.tools.items() if name not in chain and flowing(one, target)]
        if not producers:
            break
        chain.insert(0, rng.choice(producers))
    links = frozenset((call, call + 1) for call in range(len(chain) - 1))
    turns = []
    while chain:
        size = rng.randint(1, 2)
        turns.append(tuple(chain[:size]))
        chain = chain[size:]
    return Outline(tuple(turns), links)
