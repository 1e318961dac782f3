"""Errors that a transcript of tau2-bench shows without a judge."""

import pytest
from tau2_toy import entry, write

from rods_jax.environments.conversation import AGENT, OUT_OF_SCOPE, STOP, TRANSFER, USER
from rods_jax.environments.protocol import Slip
from rods_jax.environments.tau2 import data, slips
from rods_jax.environments.tau2.episodes import episode_task
from rods_jax.types import Call, Line

HANDS_OVER = Line(AGENT, calls=(Call("transfer_to_human_agents", {"summary": "x"}),))
OK, BAD = Line(USER, "fine", result=True), Line(USER, "Error: no", result=True, ok=False)


def agent(text):
    return Line(AGENT, text)


def user(text, *names):
    return Line(USER, text, tuple(Call(name) for name in names))


def found(tmp_path, *lines, ended="user_stop", **fields):
    files = data.find([write(tmp_path)])
    return slips.slips(files, episode_task("mock", entry(**fields)), lines, ended)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # It agrees and leaves: the agent cannot act.  A farewell, a refusal or an answer to no question is no error.
        ((agent("Shall I cancel it (yes/no)?"), user(f"Yes, please. {STOP}")), [Slip(1, USER, slips.STOPS)]),
        ((agent("Shall I cancel it (yes/no)?"), user("Yes, please.")), []),
        ((agent("Shall I cancel it?"), user(f"No, leave it, I am sure. {STOP}")), []),
        ((agent("Is there anything else?"), user(f"Yes, that is all. {STOP}")), []),
        ((agent("It is cancelled."), user(f"Yes, thanks. {STOP}")), []),
        ((agent("Shall I?"), agent("It is done."), user(f"Yes. {STOP}")), []),
        # Handed over, and by whom.
        ((agent("One moment."), user(TRANSFER)), [Slip(1, USER, slips.TRANSFERS)]),
        ((HANDS_OVER, OK, user(TRANSFER)), []),
        ((agent("I am transferring you."), user(TRANSFER)), []),
        ((agent("Hm."), user(OUT_OF_SCOPE)), []),
        # Words beside calls are heard by nobody.
        ((user(f"Bye {STOP}", "check_notifications"), OK), [Slip(0, USER, slips.STOPS_BESIDE)]),
        ((user("Let me see", "check_notifications"), OK), [Slip(0, USER, slips.SPEAKS_BESIDE)]),
        # Tools: of nobody, of the other side, of its own that fail.
        ((user("", "fly", "check_notifications"), BAD, OK), [Slip(0, USER, slips.UNKNOWN, "fly")]),
        ((user("", "create_task"), BAD), [Slip(0, USER, "wrong_owner", "create_task")]),
        ((user("", "check_notifications", "dismiss_notification"), OK, BAD), [Slip(0, USER, slips.FAILED, "dismiss_notification")]),
        ((Line(AGENT, calls=(Call("dismiss_notification"), Call("get_users"), Call("fly"))),), [Slip(0, AGENT, "wrong_owner", "dismiss_notification")]),
    ],
)  # fmt: skip
def test_what_is_found(tmp_path, lines, expected):
    assert found(tmp_path, *lines) == expected


def test_a_user_without_words_has_said_nothing(tmp_path):
    assert found(tmp_path, agent("Hi."), ended="user_error") == [Slip(1, USER, slips.NOTHING)]
    assert slips.NOTHING in slips.DECISIVE and slips.UNKNOWN not in slips.DECISIVE


def test_what_the_history_holds_is_nobodys_error(tmp_path):
    history = [{"role": "user", "content": "", "tool_calls": [{"id": "x", "name": "fly", "arguments": {}}]}]
    history += [{"role": "tool", "id": "x", "content": "Error: Tool 'fly' not found.", "requestor": "user"}]
    lines = (user("", "fly"), BAD, user("", "fly"), BAD)
    assert found(tmp_path, *lines, initial_state={"message_history": history}) == [Slip(2, USER, slips.UNKNOWN, "fly")]
