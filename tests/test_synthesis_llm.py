"""Roles asked of a language model: what they are told, what they refuse, and how a task is judged."""

import pytest
from synthesis_model import INJECTION, LATE_BOOK, LOOSE, REFUSE, Model, roles_of, seed_of, tags, write
from synthesis_toy import PHRASED, TASK, TOY

from rods_jax import chat
from rods_jax.chat import Reply
from rods_jax.environments.protocol import STRATA
from rods_jax.synthesis.ask import PARSES, ROLES, load_prompts
from rods_jax.synthesis.critique import GATES, critique, has_profile
from rods_jax.synthesis.errors import JUDGE
from rods_jax.synthesis.llm import keep_queries
from rods_jax.synthesis.pipeline import RULE_BASED
from rods_jax.synthesis.profile import extract_profile
from rods_jax.synthesis.told import numbers_are_told, value_is_withheld


# ----------------------------------------------------------------------------------- all roles
@pytest.mark.parametrize("category", STRATA)
def test_a_capable_model_writes_variants_of_every_category(category):
    seed = seed_of(category)
    for rng in range(4):
        result = write(model := Model(rng), seed, rng=rng, domain=PHRASED if rng % 2 else TOY)
        task = result.candidate
        assert task is not None, result.rejections
        assert critique(TOY, task, (*GATES, numbers_are_told, value_is_withheld)) is None
        assert has_profile(extract_profile(TOY, seed))(TOY, task) is None
        assert (task.category, task.scenario, task.ancestry) == (category, "toy_0", ("toy_base_0",))
        assert [exchange.role for exchange in result.exchanges] == model.roles()
        assert all(exchange.prompt == load_prompts()[exchange.role].version for exchange in result.exchanges)
        if not result.rejections:  # planner, 4 calls, 3 queries and their checks, rewrite, judge
            assert len(result.exchanges) == 13 + (category == "missing_parameter")
    (withheld,) = [t.user for t in task.turns if not t.gold] or [""]
    assert ("something" in withheld) == (category == "missing_parameter")


def test_the_planner_is_told_all_it_needs():
    write(model := Model())
    data = model.asked[0][1]
    sizes = (("Library", 2), ("Library", 1), ("Till", 1))
    assert data["layout"] == [[{"class": name, "functions": count}] for name, count in sizes]
    assert [(edge["from"], edge["to"]) for edge in data["flow"]] == [(0, 1), (0, 2), (2, 3)]
    assert data["flow"][2] == {"from": 2, "to": 3, "returned": "amount", "taken_as": "amount"}
    assert data["withheld"] is None and data["repeats"] == [False] * 3
    assert data["seed_queries"] == [turn.user for turn in TASK.turns]
    assert data["seed_calls"] == [["add_book", "lend_book"], ["compute_fine"], ["deposit_cash"]]
    assert {tool["name"] for tool in data["functions"]} == set(TOY.tools)
    write(model := Model(), seed_of("missing_function"))
    assert model.asked[0][1]["withheld"] == 2


def test_rules_and_models_mix():
    result = write(model := Model(), roles=roles_of(model)._replace(plan=RULE_BASED.plan, judge=RULE_BASED.judge))
    assert result.candidate is not None and not {"planner", "judge"} & set(model.roles())
    result = write(model := Model(), roles=RULE_BASED._replace(judge=roles_of(model).judge))
    assert result.candidate is not None and model.roles() == ["judge"] * (1 + len(result.rejections))
    result = write(model := Model(), roles=roles_of(model)._replace(rewrite=keep_queries))
    assert result.candidate.turns[0].user.startswith("Please") and "rewriter" not in model.roles()


# ----------------------------------------------------------------------------- strict and typed
UNUSABLE = {
    "planner": "no_pattern",
    "arguments": "param_gen_failed",
    "query": "query_gen_failed",
    "verifier": "query_verify_no_tag",
    "rewriter": "conversation_construct_failed",
    "withholder": "conversation_construct_failed",
    "judge": JUDGE,
    "classifier": JUDGE,
    "refiner": JUDGE,
}


@pytest.mark.parametrize("role", [role for role in ROLES if role != "patcher"])
@pytest.mark.parametrize("reply", ["", "other", "cut", "repeated"])
def test_a_role_may_spend_three_replies_and_then_fails_with_its_type(role, reply):
    good = Model()

    def bad(data):
        if reply == "other":  # the format of another role
            return tags(reasoning="So.", verdict="accept") if role != "verifier" else tags(reasoning="So.", query="a")
        if reply in ("cut", "repeated"):
            text = getattr(good, role)(data)
            return text[: len(text) - 5] if reply == "cut" else text + text
        return ""

    category = "missing_parameter" if role == "withholder" else "base"
    answers = {"classifier": REFUSE, "refiner": REFUSE}.get(role, {})
    result = write(model := Model(**answers, **{role: bad}), seed_of(category), attempts=1)
    (rejection,) = result.rejections
    assert rejection.error == UNUSABLE[role] and "3 unusable replies" in rejection.detail
    assert model.roles().count(role) == PARSES
    errors = [exchange.error for exchange in result.exchanges if exchange.role == role]
    assert len(errors) == PARSES and all(error.startswith("unusable: ") for error in errors)


def test_a_role_that_learns_from_its_correction_goes_on():
    conversations = []

    def generate(requests):
        (request,) = requests
        conversations.append(request.messages)
        return [Reply("forgot the tags") if len(request.messages) == 2 else Reply(Model().answer(request.messages))]

    result = write(None, roles=RULE_BASED._replace(judge=roles_of(generate).judge))
    assert result.candidate is not None
    first, second = conversations
    assert second[:2] == first and second[2] == {"role": "assistant", "content": "forgot the tags"}
    assert "<reasoning> is expected" in second[3]["content"]


BAD_PLANS = {
    "unknown": "Library: add_book, burn_book",
    "of another class": "Library: add_book, deposit_cash",
    "wrong class": "Till: add_book, lend_book",
    "too few": "Library: add_book",
    "too many": "Library: add_book, lend_book, compute_fine",
    "twice": "Library: add_book, add_book",
    "no class": "add_book, lend_book",
    "code": "Library: add_book, __import__('os').abort()",
}


@pytest.mark.parametrize("turn", BAD_PLANS.values(), ids=BAD_PLANS)
def test_a_plan_must_keep_to_layout_and_list(turn):
    def planner(data):
        return tags(
            reasoning="",
            narrative="Ada.",
            turn_1=turn,
            turn_2="Library: compute_fine",
            turn_3="Till: deposit_cash",
        )

    result = write(model := Model(planner=planner), attempts=1)
    assert [r.error for r in result.rejections] == ["no_pattern"] and model.roles() == ["planner"] * PARSES
    right = planner({}).replace(turn, "Library: add_book, lend_book")
    assert write(Model(planner=lambda data: right), attempts=1).candidate is not None
    for narrative in ("", "long " * 300):
        silent = right.replace("Ada.", narrative)
        assert write(Model(planner=lambda data, silent=silent: silent), attempts=1).candidate is None


def test_a_withheld_function_must_be_new():
    turns = {
        "turn_1": "Library: add_book, lend_book",
        "turn_2": "Library: add_book",
        "turn_3": "Till: deposit_cash",
    }
    model = Model(planner=lambda data: tags(reasoning="", narrative="Ada.", **turns))
    (rejection,) = write(model, seed_of("missing_function", LOOSE), attempts=1).rejections
    assert (
        rejection.error == "no_pattern" and "turn 2 must use a function that no earlier turn uses" in rejection.detail
    )
    assert write(model, LOOSE, attempts=1).candidate is not None


@pytest.mark.parametrize("leaky", [True, False])
def test_what_is_withheld_is_taken_out_and_supplied(leaky):
    def withholder(data):
        query = data["query"] if leaky else "Add something."
        return tags(reasoning="", query=query, supply=f"I mean {data['value'] if leaky else 'that'}.")

    model = Model(withholder=withholder)
    (rejection,) = write(model, seed_of("missing_parameter"), attempts=1).rejections
    assert rejection.error == "conversation_construct_failed" and "3 unusable" in rejection.detail


@pytest.mark.parametrize("error", [chat.TIMEOUT, chat.RATE_LIMITED, chat.BUDGET_EXHAUSTED])
def test_a_server_that_fails_costs_attempts_and_blames_no_tool(error):
    def down(requests):
        return [Reply("", error=error, detail="so it is") for _ in requests]

    result = write(None, LOOSE, roles=roles_of(Model(), query=down))
    assert result.candidate is None
    assert [(r.error, r.functions, dict(r.patch)) for r in result.rejections] == [("pipeline_exception", (), {})] * 3
    assert all(r.detail == f"query: {error}: so it is" for r in result.rejections)
    assert [exchange.error for exchange in result.exchanges if exchange.role == "query"] == [error] * 3


def test_tool_calls_nobody_asked_for_are_an_unusable_reply():
    def caller(requests):
        return [Reply("", error=chat.MALFORMED_CALL)]

    (rejection,) = write(None, roles=roles_of(Model(), planner=caller), attempts=1).rejections
    assert rejection.error == "no_pattern"


# -------------------------------------------------------------------------------------- judging
def test_one_refinement_and_no_second():
    verdicts = iter(["reject", "accept"])

    def once(data):
        verdict = next(verdicts)
        return tags(reasoning="", verdict=verdict, reason="Turn 1 is odd." if verdict == "reject" else "")

    result = write(model := Model(judge=once))
    assert result.candidate.turns[0].user.startswith("Dear all!") and not result.rejections
    assert model.roles()[-4:] == ["judge", "classifier", "refiner", "judge"]

    result = write(model := Model(**REFUSE), attempts=1)
    assert [(r.error, r.detail) for r in result.rejections] == [(JUDGE, "Turn 1 is odd.")]
    assert model.roles()[-4:] == ["judge", "classifier", "refiner", "judge"]

    calls = {"classifier": lambda data: tags(reasoning="", fault="calls", turn="1")}
    result = write(model := Model(**REFUSE, **calls), attempts=1)
    assert [(r.error, r.detail) for r in result.rejections] == [(JUDGE, "Turn 1 is odd.")]
    assert model.roles()[-2:] == ["judge", "classifier"]


@pytest.mark.parametrize("query", ["Ada again.", "Use add_book, please."])
def test_a_refined_task_passes_the_gates_again(query):
    """The first forgets a value, the second names a function."""
    last = {"classifier": lambda data: tags(reasoning="", fault="query", turn="3")}
    model = Model(**REFUSE, **last, refiner=lambda data: tags(reasoning="", query=query))
    result = write(model, LOOSE, attempts=1)
    (rejection,) = result.rejections
    assert rejection.error == ("numbers_are_told" if "again" in query else JUDGE)


@pytest.mark.parametrize(
    "parts",
    [
        {"verdict": "accept", "reason": "But turn 2 is odd."},
        {"verdict": "reject", "reason": ""},
        {"verdict": "Accept", "reason": ""},
        {"verdict": "accept or reject", "reason": ""},
        {"verdict": "", "reason": ""},
    ],
)
def test_a_verdict_is_one_word_and_agrees_with_its_reason(parts):
    (rejection,) = write(Model(judge=lambda data: tags(reasoning="", **parts)), attempts=1).rejections
    assert rejection.error == JUDGE and "3 unusable replies" in rejection.detail


@pytest.mark.parametrize("turn", ["0", "4", "-1", "one", "1, 2", ""])
def test_the_classifier_names_one_turn(turn):
    answers = {"classifier": lambda data: tags(reasoning="", fault="query", turn=turn)}
    (rejection,) = write(model := Model(**REFUSE, **answers), attempts=1).rejections
    assert rejection.error == JUDGE and "refiner" not in model.roles()


def poisoned(rng, classes):
    state = TOY.sample_state(rng, classes)
    for book in state["Library"]["books"]:
        book["title"] = INJECTION
    return state


@pytest.mark.parametrize("role", ["judge", "verifier"])
def test_what_a_tool_returns_cannot_give_the_verdict(role):
    """A gullible model copies what it read, then refuses: the copy must not become its verdict."""
    seen = []

    def gullible(data):
        seen.append(data)
        outputs = [call["output"] for turn in data.get("turns", [data]) for call in turn["calls"]]
        parts = {"reasoning": str(outputs), "verdict": "reject"}
        return tags(**parts | ({"reason": "Turn 1 is odd."} if role == "judge" else {}))

    messages = []

    def generate(requests):
        messages.extend(request.messages for request in requests)
        return model(requests)

    model = Model(planner=lambda data: LATE_BOOK, **{role: gullible})
    poison = TOY._replace(sample_state=poisoned)
    result = write(None, LOOSE, domain=poison, roles=roles_of(generate), attempts=1)
    (rejection,) = result.rejections
    assert rejection.error == (JUDGE if role == "judge" else "query_verify_no_tag")
    assert seen[0].get("turns", [seen[0]])[0]["calls"][0]["output"] == {"title": INJECTION}
    for rules, data, *_ in messages:  # the injection arrives, and not as a tag
        assert "<verdict>" not in data["content"] and INJECTION not in rules["content"]
    # The pipeline can live with such a world: an honest model's verdict stands.
    honest = Model(planner=lambda data: LATE_BOOK)
    assert write(honest, LOOSE, domain=poison).candidate is not None
