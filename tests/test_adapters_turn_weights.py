"""Weights of messages, on a dialogue in which some calls fail and are repaired, and others are not."""

import json

from synthesis_toy import TASK, TOY

from rods_jax.adapters import trajectories
from rods_jax.adapters.turn_weights import repaired, weighed
from rods_jax.dialogue import Said, play
from rods_jax.types import Action, Call

LENT = Call("lend_book", {"book_id": 700, "borrower": "anna"})
SCRIPT = [
    Action(error="no JSON"),  # repaired in its turn
    Action(calls=(Call("add_book", {"name": "Hamlet"}),)),  # so is this
    Action(calls=(Call("add_book", {"title": "Hamlet"}), LENT)),
    Action(answer="Done."),
    Action(calls=(Call("compute_fine", {"book_id": 1}),)),  # repaired in another turn alone
    Action(answer="I cannot tell."),
    Action(calls=(Call("deposit_cash", {"amount": 1}),)),
    Action(error="no JSON"),  # and nothing after it
    Action(answer="Done."),
]
WEIGHTS = [1, 1, 1, 1, 0, 1, 1, 0, 1]


def recorded():
    script = iter(SCRIPT)
    return play(TOY, TASK, 0, lambda messages: Said("text", next(script)))


def test_mistakes_are_learned_with_their_correction_alone():
    moves = recorded().moves
    assert [int(repaired(moves, place)) for place in range(len(moves))] == WEIGHTS


def test_the_file_holds_weights_and_all_messages(tmp_path):
    record = recorded()
    for form in (trajectories.chat, weighed(trajectories.chat)):
        trajectories.export(tmp_path / "sft.jsonl", [record], [TASK], TOY, form)
        row = json.loads((tmp_path / "sft.jsonl").read_text())
        said = [one for one in row["messages"] if one["role"] == "assistant"]
        weights = [one.pop("weight", 1) for one in said]
        assert weights == ([1] * len(SCRIPT) if form is trajectories.chat else WEIGHTS)
        assert row == trajectories.chat(record, TASK, TOY)


def test_a_rule_of_ones_own_and_a_greeting():
    def greeted(record, task, domain):
        row = trajectories.chat(record, task, domain)
        return row | {"messages": [{"role": "assistant", "content": "Hello.", "weight": 0}, *row["messages"]]}

    row = weighed(greeted, keep=lambda moves, place: place > 0)(recorded(), TASK, TOY)
    said = [one.get("weight", 1) for one in row["messages"] if one["role"] == "assistant"]
    assert said == [0, 0] + [1] * (len(SCRIPT) - 1)
