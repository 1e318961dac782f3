"""Dual feedback (RODS Appendices E and F): 12 error types, 4 of which patch, and what a failure teaches."""

import json
import random
from dataclasses import replace
from typing import TypedDict

import pytest
from synthesis_model import LOOSE, Model, roles_of, tags
from synthesis_toy import STATE, TASK, TOY

from rods_jax import chat
from rods_jax.chat import Reply
from rods_jax.environments import toolkit
from rods_jax.synthesis import errors
from rods_jax.synthesis.attempt import Attempt, Rejection
from rods_jax.synthesis.errors import ADVICE, JUDGE, LAYOUT_TOO_LONG, PATCHABLE, STRUCTURE_LOST, Rejected
from rods_jax.synthesis.patch import MAX_PATCHES, Patch, accept_patches, deep_merge, split_path
from rods_jax.synthesis.pipeline import RULE_BASED, synthesize
from rods_jax.synthesis.plan import Plan, PlannedCall
from rods_jax.synthesis.profile import Profile, extract_profile
from rods_jax.types import Call, Task, Turn, World


def write(roles, seed=TASK, domain=TOY, rng=0, **kwargs):
    return synthesize(domain, seed, rng=random.Random(rng), step=3, known_hashes=(), roles=roles, **kwargs)


# --------------------------------------------------------------------------------- error types
def test_there_are_12_types_of_which_4_patch_and_two_of_ours():
    names = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, str)}
    assert names - {JUDGE, LAYOUT_TOO_LONG} == set(ADVICE) and len(set(ADVICE.values())) == 13
    assert len(set(ADVICE) - {STRUCTURE_LOST}) == 12
    assert set(PATCHABLE) == {"param_gen_failed", "decompose_failed", "func_sample_failed", "vm_exec_failed"}


def plan_of(*turns):
    return lambda attempt: Plan(tuple(tuple(map(PlannedCall, turn)) for turn in turns), narrative="Ada.")


def arguments(**values):
    return {"arguments": lambda data: tags(reasoning="", arguments=json.dumps(values))}


LEND = plan_of(["lend_book"], ["add_book"])
SCENARIOS = {  # error type -> (answers of the model, roles that are no model's)
    "param_gen_failed": ({"arguments": lambda data: ""}, {}),
    "decompose_failed": ({}, {"plan": plan_of(["tidy_up_the_library"])}),
    "func_sample_failed": ({}, {"plan": plan_of(["add_book", "compute_fine"], ["compute_fine"])}),
    "vm_exec_failed": (arguments(book_id=1, borrower="anna"), {"plan": LEND}),
    "duplicate_func": (arguments(title="Emma"), {"plan": plan_of(["add_book", "add_book"])}),
    "query_gen_failed": ({"query": lambda data: tags(reasoning="", query="Do add_book.")}, {}),
    "query_verify_failed": ({"verifier": lambda data: tags(reasoning="No.", verdict="reject")}, {}),
    "query_verify_no_tag": ({"verifier": lambda data: "accept"}, {}),
    "conversation_construct_failed": ({"rewriter": lambda data: tags(reasoning="", query_1="Only one.")}, {}),
    "no_pattern": ({"planner": lambda data: ""}, {}),
    "pipeline_exception": ({"query": lambda data: {}["oops"]}, {}),
}
BLAMED = {
    "param_gen_failed": {"add_book", "lend_book", "compute_fine", "deposit_cash"},
    "decompose_failed": {"tidy_up_the_library"},
    "func_sample_failed": {"compute_fine"},
    "vm_exec_failed": {"lend_book"},
    "duplicate_func": {"add_book"},
}


@pytest.mark.parametrize("error", SCENARIOS)
def test_each_type_is_raised_counted_and_patches_if_it_may(error):
    answers, others = SCENARIOS[error]
    seed = LOOSE if error == "duplicate_func" else TASK  # where values must flow, no call comes twice
    result = write(roles_of(model := Model(**answers))._replace(**others), seed, attempts=1)
    assert result.candidate is None
    (rejection,) = result.rejections
    assert (rejection.attempt, rejection.error) == (0, error) and rejection.detail
    blamed = BLAMED.get(error, set())
    assert set(rejection.functions) <= blamed and bool(rejection.functions) == bool(blamed)
    assert model.roles().count("patcher") == (error in PATCHABLE)
    if "patcher" in model.roles():
        told = model.asked[-1][1]
        assert (told["error"], told["detail"]) == (error, rejection.detail)
        assert told["state"]["Till"] and [f["name"] for f in told["functions"]] == [
            name for name in rejection.functions if name in TOY.tools
        ]


def test_a_class_without_tools_has_no_prompts():
    profile = Profile("base", ("Garden",), (("Garden",),) * 2)
    with pytest.raises(Rejected, match="no_prompts: class Garden has no tools"):
        roles_of(Model()).plan(Attempt(TOY, profile, {}, random.Random(0)))


# ------------------------------------------------------------------------------------- patches
class Done(TypedDict):
    balance: int


class Bank:
    """Nothing works until the bank is open, the account unlocked and its balance high enough."""

    def __init__(self, is_open: bool = False, accounts: dict = {}, rates: dict = {}, limits: list = ()):
        self.is_open = is_open
        self.accounts = {name: dict(account) for name, account in accounts.items()}
        self.rates = dict(rates)
        self.limits = [int(limit) for limit in limits]
        if any(account["balance"] > 10**6 for account in self.accounts.values()):
            raise ValueError("nobody is that rich")

    def pay_bill(self, owner: str, amount: int) -> Done:
        """Pays a bill."""
        account = self._account(owner, amount)
        account["balance"] -= amount
        return {"balance": account["balance"]}

    def buy_stock(self, owner: str, amount: int) -> Done:
        """Buys stock."""
        return self.pay_bill(owner, amount)

    def give_gift(self, owner: str, amount: int) -> Done:
        """Gives a gift."""
        return self.pay_bill(owner, amount)

    def _account(self, owner: str, amount: int) -> dict:
        account = self.accounts[owner]
        for wrong, words in ((not self.is_open, "closed"), (account["locked"], "locked"),
                             (account["balance"] < amount, "too little money")):  # fmt: skip
            if wrong:
                raise ValueError(words)
        return account


BANK_STATE = {
    "Bank": {
        "is_open": False,
        "accounts": {"anna": {"balance": 500, "locked": True}},
        "rates": {"usd": 1.5},
        "limits": [10, 20],
    }
}
BANK = toolkit.domain("bank", {"Bank": Bank}, sample_state=lambda rng, classes: BANK_STATE)
PAY = Turn("Pay 40 for anna.", (Call("pay_bill", {"owner": "anna", "amount": 40}),))
OPEN_STATE = deep_merge(BANK_STATE, {"Bank": {"is_open": True, "accounts": {"anna": {"locked": False}}}})
BANK_TASK = Task("bank_base_0", "bank_0", "base", World(("Bank",), OPEN_STATE), (PAY, PAY))


def accept(*patches, state=BANK_STATE):
    return accept_patches(BANK, World(("Bank",), state), [Patch("Bank", split_path(p), v) for p, v in patches])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("is_open", True),
        ("accounts.anna.balance", 900),
        ("accounts.anna.balance", 900.5),  # integers and floats are both numbers
        ("accounts.anna", {"locked": False}),
        ("accounts", {"anna": {"locked": False}}),
        ("accounts.boris", {"balance": 3, "locked": False}),  # a new entry, like those beside it
        ("rates.eur", 2),
        ("limits", [1, 2, 3]),
        ("limits", []),
    ],
)
def test_safe_patches_are_accepted(path, value):
    change, refused = accept((path, value))
    assert not refused
    expected = value
    for key in reversed(split_path(path)):
        expected = {key: expected}
    state = deep_merge(BANK_STATE, change)
    assert state == deep_merge(BANK_STATE, {"Bank": expected})
    assert list(state["Bank"]) == list(BANK_STATE["Bank"])  # the order of keys matters to some simulators


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("is_open", 1, "boolean expected"),
        ("is_open", "yes", "boolean expected"),
        ("is_open", None, "boolean expected"),
        ("is_open", [True], "boolean expected"),
        ("is_open", {"a": True}, "boolean expected"),
        ("is_open", False, "changes nothing"),
        ("accounts.anna.balance", True, "number expected"),
        ("accounts.anna.balance", "900", "number expected"),
        ("accounts.anna", 900, "an object must stay an object"),
        ("accounts", [], "an object must stay an object"),
        ("accounts.anna.balance.value", 9, "number expected"),
        ("accounts.anna.owner", "anna", "no such field"),
        ("accounts.boris", 7, "an object must stay an object"),
        ("accounts.boris", {"balance": "7"}, "number expected"),
        ("rates.eur", "2", "number expected"),
        ("limits", {"0": 1}, "a list must stay a list"),
        ("limits", [1, "2"], "number expected"),
        ("doors", 3, "no such field"),
        ("", 3, "no such field"),
        ("_account", 3, "no such field"),
        ("rates.x" + ".x" * 12, 3, "too long"),
        ("rates", {str(n): 1 for n in range(999)}, "too long"),
        ("accounts.anna.balance", 10**7, "nobody is that rich"),  # the simulator itself refuses to start
    ],
)
def test_unsafe_patches_are_refused_with_a_reason(path, value, reason):
    change, refused = accept((path, value), ("is_open", True))
    assert change == {"Bank": {"is_open": True}}, "a bad patch does not stop the next one"
    (text,) = refused
    assert text.startswith(f"Bank.{path}"[:40]) and reason in text


def test_patches_build_on_each_other_and_are_few():
    change, refused = accept(("rates.eur", 2), ("rates.eur", "x"), ("rates.eur", 3))
    assert change["Bank"]["rates"] == {"eur": 3} and len(refused) == 1
    change, refused = accept(*((f"rates.r{n}", n) for n in range(MAX_PATCHES + 2)))
    assert len(change["Bank"]["rates"]) == MAX_PATCHES and len(refused) == 2
    _, refused = accept_patches(BANK, World(("Bank",), BANK_STATE), [Patch("Shop", ("is_open",), True)])
    assert refused == ("Shop.is_open: no class of this task",)


def test_a_field_left_to_its_default_keeps_the_rest_of_it():
    class Shelf:
        def __init__(self, room: dict = {"width": 3, "height": 4}):
            self.room = dict(room)

        def look(self) -> str:
            """Looks at the shelf."""
            return str(self.room)

    domain = toolkit.domain("shelf", {"Shelf": Shelf})
    change, refused = accept_patches(domain, World(("Shelf",)), [Patch("Shelf", ("room", "width"), 9)])
    assert (change, refused) == ({"Shelf": {"room": {"width": 9, "height": 4}}}, ())


# -------------------------------------------------------------------------- over the attempts
class Banker(Model):
    """Plans one function for each turn, and repairs what the bank complains about, one thing at a time."""

    def planner(self, data):
        names = sorted(tool["name"] for tool in data["functions"])
        turns = {f"turn_{n}": f"Bank: {names[(n - 1) % len(names)]}" for n, _ in enumerate(data["layout"], 1)}
        return tags(reasoning="", narrative="Anna pays.", **turns)

    def arguments(self, data):
        values = {"owner": "anna", "amount": 100 + len(data["calls"]) + len(data["plan"][0][0])}
        return tags(reasoning="", arguments=json.dumps(values))

    def patcher(self, data):
        repairs = {"closed": ("is_open", True), "locked": ("accounts.anna.locked", False)}
        path, value = next(repair for words, repair in repairs.items() if words in data["detail"])
        return tags(reasoning="", patches=json.dumps([{"class": "Bank", "path": path, "value": value}]))


def test_patches_accumulate_until_an_attempt_succeeds():
    result = write(roles_of(model := Banker()), BANK_TASK, BANK)
    assert [(r.attempt, r.error) for r in result.rejections] == [(0, "vm_exec_failed"), (1, "vm_exec_failed")]
    assert [r.patch for r in result.rejections] == [
        {"Bank": {"is_open": True}},
        {"Bank": {"accounts": {"anna": {"locked": False}}}},
    ]
    assert result.candidate.world.state == OPEN_STATE
    planners = [data for role, data in model.asked if role == "planner"]
    assert [data["state"]["Bank"]["is_open"] for data in planners] == [False, True, True]
    assert [len(data["patches"]) for data in planners] == [0, 1, 2]
    assert BANK_STATE["Bank"]["is_open"] is False  # the seed's own state is nobody's to change


def test_blame_accumulates_and_history_and_advice_reach_the_next_plan():
    result = write(roles_of(model := Banker()), BANK_TASK, BANK)
    planners = [data for role, data in model.asked if role == "planner"]
    assert [data["blocked"] for data in planners] == [[], ["buy_stock"], ["buy_stock", "give_gift"]]
    for data in planners:
        assert not {tool["name"] for tool in data["functions"]} & set(data["blocked"])
    assert [[failure["error"] for failure in data["failures"]] for data in planners] == [
        [], ["vm_exec_failed"], ["vm_exec_failed"] * 2,
    ]  # fmt: skip
    assert planners[2]["failures"][1] == {
        "attempt": 2,
        "error": "vm_exec_failed",
        "detail": result.rejections[1].detail,
        "plan": [["give_gift"], ["pay_bill"]],
        "advice": ADVICE["vm_exec_failed"],
    }
    assert {call.name for turn in result.candidate.turns for call in turn.gold} == {"pay_bill"}


def test_a_plan_that_failed_is_not_made_again():
    stubborn = Model(verifier=lambda data: tags(reasoning="No.", verdict="reject"))
    turns = {
        "turn_1": "Library: add_book, lend_book",
        "turn_2": "Library: compute_fine",
        "turn_3": "Till: deposit_cash",
    }
    same = tags(reasoning="", narrative="Ada.", **turns)
    stubborn.answers["planner"] = lambda data: same
    result = write(roles_of(stubborn))
    assert [r.error for r in result.rejections] == ["query_verify_failed", "no_pattern", "no_pattern"]
    assert "has failed before" in result.rejections[1].detail and result.rejections[0].plan[1] == ("compute_fine",)


def test_too_few_functions_left():
    history = (Rejection(0, "vm_exec_failed", "", ("add_book", "lend_book")),)
    result = write(roles_of(model := Model()), history=history)
    assert result.rejections[1].error == "func_sample_failed" and "planner" not in model.roles()


@pytest.mark.parametrize("roles", [RULE_BASED, roles_of(Model(judge=lambda data: ""))], ids=["rules", "model"])
def test_no_more_than_three_attempts(roles):
    broken = roles._replace(rewrite=lambda *_: {}["oops"]) if roles is RULE_BASED else roles
    assert [r.attempt for r in write(broken).rejections] == [0, 1, 2]
    assert [r.attempt for r in write(broken, attempts=2).rejections] == [0, 1]


def test_attempts_draw_afresh_and_from_one_state():
    states = []

    def refuse(attempt, plan):
        states.append(attempt.world.state)
        raise Rejected("query_gen_failed", "no")

    plans = {r.plan for r in write(RULE_BASED._replace(execute=refuse)).rejections}
    assert len(plans) > 1 and states == states[:1] * 3  # a patch must fit the state of the next attempt


def test_rules_neither_ask_nor_patch():
    broken = RULE_BASED._replace(execute=lambda *_: (_ for _ in ()).throw(Rejected("vm_exec_failed", "no")))
    result = write(broken)
    assert not result.exchanges and [dict(r.patch) for r in result.rejections] == [{}] * 3


def test_feedback_that_fails_costs_the_patch_and_not_the_seed():
    for reply, reason in (
        ("no tags", "3 unusable replies"),
        (tags(reasoning="", patches="{}"), "3 unusable replies"),
        (tags(reasoning="", patches='[{"class": "Bank", "path": "is_open"}]'), "3 unusable replies"),
        (tags(reasoning="", patches='[{"class": "Bank", "path": 1, "value": 1}]'), "3 unusable replies"),
        (tags(reasoning="", patches='[{"class": "Bank", "path": "is_open", "value": 1}]'), "boolean expected"),
    ):
        result = write(roles_of(Banker(patcher=lambda data, reply=reply: reply)), BANK_TASK, BANK)
        assert [r.error for r in result.rejections] == ["vm_exec_failed"] * 3
        assert all(not r.patch and reason in r.refused_patches[0] for r in result.rejections)
    down = lambda requests: [Reply("", error=chat.TIMEOUT)]
    result = write(roles_of(Banker(), patcher=down), BANK_TASK, BANK)
    assert [r.refused_patches for r in result.rejections] == [
        ("Unanswered: pipeline_exception: patcher: timeout: ",)
    ] * 3


@pytest.mark.parametrize("attempts_before", [0, 1, 2])
def test_a_restart_goes_on_where_the_history_ends(attempts_before):
    whole = write(roles_of(Banker()), BANK_TASK, BANK, rng=7)
    history = whole.rejections[:attempts_before]
    rest = write(roles_of(model := Banker()), BANK_TASK, BANK, rng=7, history=history)
    assert rest.candidate == whole.candidate and rest.rejections == whole.rejections
    assert rest.exchanges == tuple(e for e in whole.exchanges if e.attempt >= attempts_before)
    assert model.roles().count("planner") == 3 - attempts_before
    rules = [replace(TASK, id=f"t{n}") for n in range(30)]
    for seed in rules:  # the rules too: their random numbers belong to the attempt
        one = synthesize(TOY, seed, rng=random.Random(seed.id), step=1, known_hashes=())
        again = synthesize(
            TOY,
            seed,
            rng=random.Random(seed.id),
            step=1,
            known_hashes=(),
            history=one.rejections[:attempts_before],
        )
        assert again == one


def test_a_finished_history_asks_nobody():
    history = tuple(Rejection(n, "judge", "no") for n in range(3))
    result = write(roles_of(model := Model()), history=history)
    assert result.candidate is None and result.rejections == history and not model.asked


def test_the_toy_state_is_untouched():
    assert extract_profile(TOY, TASK).links and STATE == {
        "Library": {"books": [], "next_book_id": 700},
        "Till": {"balance": 5},
    }
