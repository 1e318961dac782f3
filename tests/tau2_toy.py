"""A made-up world in the format of tau2-bench's `mock`, and dialogues in it: what runs without anybody's data."""

import json

from rods_jax.environments.tau2.messages import AGENT, TOOL, Message, ToolCall

SOURCE = '''
class MockTools:
    def create_task(self, user_id, title, description=None):
        """Writes a task down.

        For one person.

        Args:
            user_id: Whose it is.
        """

    def get_users(self):
        """Everybody."""
'''
CRITERIA = {
    "actions": [{"action_id": "a", "name": "create_task", "arguments": {"user_id": "ada", "title": "Call Bob"}}],
    "env_assertions": [
        {
            "env_type": "assistant",
            "func_name": "assert_number_of_tasks",
            "arguments": {"user_id": "ada", "expected_number": 2},
        }
    ],
    "communicate_info": ["1,250.50", "Call Bob"],
    "reward_basis": ["DB", "ENV_ASSERTION", "ACTION", "COMMUNICATE"],
}


def entry(name="call", **fields):
    """A task as a file has it."""
    scenario = {"persona": "Brief.", "instructions": "Have Ada call Bob."}
    return {"id": name, "user_scenario": scenario, "evaluation_criteria": CRITERIA} | fields


def write(root, entries=(), splits=None, text=""):
    """Folders as a wheel has them; a text stands in place of the tasks' file."""
    entries = list(entries) or [entry()]
    domain = root / "tau2/data/tau2/domains/mock"
    source = root / "tau2/domains/mock"
    guidelines = root / "tau2/data/tau2/user_simulator"
    for folder in (domain, source, guidelines, root / "tau2/agent"):
        folder.mkdir(parents=True)
    content = {
        "db.json": {
            "users": {"ada": {"user_id": "ada", "name": "Ada", "tasks": ["task_1"], "age": 36}},
            "tasks": {"task_1": {"status": "pending", "title": "Pay", "task_id": "task_1"}},
        },
        "user_db.json": {"notifications": {"n1": {"notification_id": "n1", "message": "Pay!"}}},
        "split_tasks.json": splits or {"base": [one["id"] for one in entries]},
        "tasks.json": entries,
    }
    for name, value in content.items():
        (domain / name).write_text(json.dumps(value))
    if text:
        (domain / "tasks.json").write_text(text)
    (domain / "policy.md").write_text("Be exact.")
    (domain / "policy_solo.md").write_text("Be alone.")
    (guidelines / "simulation_guidelines.md").write_text("Speak.")
    (guidelines / "simulation_guidelines_tools.md").write_text("Speak or look.<PERSONA_GUIDELINES>")
    (source / "tools.py").write_text(SOURCE)
    words = 'AGENT_INSTRUCTION = """\nHelp.\n""".strip()\nAGENT_SOLO_INSTRUCTION = "Help alone."\n'
    (root / "tau2/agent/llm_agent.py").write_text(words)
    return root


def dialogue(environment, *moves):
    """Messages of moves: a text is the agent's; (side, name, arguments) is a call, made now."""
    messages = []
    for place, move in enumerate(moves):
        if isinstance(move, str):
            messages.append(Message(AGENT, move))
            continue
        side, name, arguments = move
        seen = environment.call(side, name, arguments)
        messages.append(Message(side, None, (ToolCall(f"c{place}", name, arguments, side),)))
        messages.append(Message(TOOL, seen.text, None, f"c{place}", side, not seen.ok))
    return messages
