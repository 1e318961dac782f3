"""How BFCL's 400 training seeds fare with a language model that keeps their structure, one that loses it, one that mends it.

    python tests/bfcl_flow.py                 (from the root, with PYTHONPATH=.:tests; about two minutes)

The models are scripted: they know what the rule-based author writes of a seed, and say it in the roles of a model.  The
one that loses the flow spells out every value in every request; the one that mends does so until it is told.
Left out on purpose: any claim about a real model's acceptance.
"""

import json
import random
import re
from collections import Counter

from synthesis_model import role_and_data, tags

from rods_jax.chat import Reply
from rods_jax.environments.bfcl import bfcl_domain, load_tasks, split
from rods_jax.synthesis.ask import ROLES
from rods_jax.synthesis.llm import llm_roles
from rods_jax.synthesis.pipeline import RULE_BASED, synthesize
from rods_jax.synthesis.profile import extract_profile, profile_match


class Scripted:
    def __init__(self, execution, queries, kind):
        self.turns, self.queries, self.kind = execution.turns, queries, kind
        self.calls = [call for turn in execution.turns for call in turn]

    def __call__(self, requests):
        return [Reply(self.answer(request.messages), (), None, 0, 0) for request in requests]

    def answer(self, messages):
        role, data = role_and_data(messages[:2])
        told = self.kind == "keeps" or self.kind == "mends" and len(messages) > 2
        query = lambda n: self.queries[n] if told else f"{self.queries[n]} That is {self.values(n)}."
        match role:
            case "planner":
                names = iter(call.tool for call in self.calls)
                runs = [
                    "; ".join(
                        f"{run['class']}: " + ", ".join(next(names) for _ in range(run["functions"])) for run in turn
                    )
                    for turn in data["layout"]
                ]
                return tags(reasoning="", narrative="A.", **{f"turn_{n}": text for n, text in enumerate(runs, 1)})
            case "arguments":
                return tags(reasoning="", arguments=json.dumps(dict(self.calls[len(data["calls"])].call.arguments)))
            case "query":
                return tags(reasoning="", query=query(len(data["earlier_queries"])))
            case "rewriter":
                return tags(reasoning="", **{f"query_{n + 1}": query(n) for n in range(len(self.turns))})
            case "withholder":
                value = str(data["value"])
                hidden = re.sub(
                    rf"(?<!\w){re.escape(value)}(?!\w)", "a certain one", data["query"], flags=re.IGNORECASE
                )
                return tags(reasoning="", query=hidden, supply=f"I mean {value}.")
            case "verifier":
                return tags(reasoning="", verdict="accept")
            case "judge":
                return tags(reasoning="", verdict="accept", reason="")
        return ""

    def values(self, turn):
        return ", ".join(str(value) for call in self.turns[turn] for value in call.call.arguments.values())


def script_of(domain, seed):
    """What the rules ran and said of a seed at their first success, or None."""
    kept = {}

    def execute(attempt, plan):
        kept["execution"] = RULE_BASED.execute(attempt, plan)
        return kept["execution"]

    def rewrite(attempt, plan, execution):
        kept["queries"] = RULE_BASED.rewrite(attempt, plan, execution)
        return kept["queries"]

    roles = RULE_BASED._replace(execute=execute, rewrite=rewrite)
    result = synthesize(domain, seed, rng=random.Random(seed.id), step=0, known_hashes=(), roles=roles)
    return (kept["execution"], kept["queries"]) if result.candidate is not None else None


if __name__ == "__main__":
    domain, seeds = bfcl_domain(), split(load_tasks(), seed=0)[0]
    pairs = [(seed, script_of(domain, seed)) for seed in seeds]
    print(f"{len(seeds)} seeds, {sum(script is not None for _, script in pairs)} with a script")
    for kind in ("keeps", "mends", "loses"):
        accepted, same, errors, asked = 0, 0, Counter(), Counter()
        for seed, script in pairs:
            if script is None:
                continue
            roles = llm_roles(dict.fromkeys(ROLES, Scripted(*script, kind)))
            rng = random.Random(seed.id)
            result = synthesize(domain, seed, rng=rng, step=0, known_hashes=(), roles=roles, attempts=1)
            errors.update(rejection.error for rejection in result.rejections)
            asked.update(exchange.role for exchange in result.exchanges if exchange.error)
            if result.candidate is not None:
                accepted += 1
                match = profile_match(extract_profile(domain, result.candidate), extract_profile(domain, seed))
                same += set(match.values()) == {1}
        print(f"{kind}: {accepted} variants, {same} of the seed's structure; {dict(errors)}; asked again {dict(asked)}")
