"""One self-contained HTML page of trajectories: turn by turn what was called, what came back, why a turn failed.

Of a conversation it shows both sides: their words, calls and results, the checks by name, and what either side did wrong.

Nothing on the page can run: every value is escaped, and the page's own policy forbids scripts and requests.
Left out on purpose: episodes beyond MAX_EPISODES; all of them are in the journal.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2

from rods_jax.dialogue import Move, Record
from rods_jax.environments.protocol import Domain
from rods_jax.evaluation import CODES, slips_of
from rods_jax.files import write_atomically
from rods_jax.types import Call, Json, Line, Task

MAX_EPISODES = 1_000
MAX_CHARACTERS = 2_000  # of one text on the page

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --good: #2f8f7f; --bad: #c2571a; --user: #4a6fa5; --soft: #8882; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.2rem; }
table { border-collapse: collapse; margin: .5rem 0 1rem; display: block; overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: .15rem .8rem .15rem 0; }
tr { border-bottom: 1px solid var(--soft); }
pre { margin: .2rem 0; white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.4 ui-monospace, monospace; }
summary { cursor: pointer; padding: .2rem 0; overflow-wrap: anywhere; }
p.bad { margin: .2rem 0; }
section { margin: .6rem 0 .6rem 1rem; padding-left: .8rem; border-left: 3px solid var(--good); }
section.bad { border-color: var(--bad); }
i.good { color: var(--good); } i.bad, .bad > b { color: var(--bad); }
i { font-style: normal; } .quiet { opacity: .65; } .user { font-weight: 600; }
.back { padding-left: 1.2rem; border-left: 1px solid var(--soft); margin-left: .3rem; }
.line { margin: .4rem 0; padding: .1rem .8rem; border-left: 3px solid var(--soft); border-radius: 3px; }
.line.of-user { margin-left: clamp(1rem, 12vw, 9rem); background: var(--soft); border-color: var(--user); }
.line.of-agent { margin-right: clamp(1rem, 12vw, 9rem); border-color: var(--good); }
.line small { opacity: .65; } ul.checks { list-style: none; padding: 0; overflow-wrap: anywhere; }
#only:checked ~ details.passed { display: none; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<table>
<tr><th></th><th>tasks</th><th>episodes</th><th>failed</th><th>solved (official)</th><th>solved (RODS)</th>
<th>final state alone</th><th>progress reward</th></tr>
{% for name, row in rows.items() %}
<tr><td>{{ name }}</td><td>{{ row.tasks }}</td><td>{{ row.episodes }}</td><td>{{ row.failed }}</td>
{% for key in ("official", "rods", "state", "progress") %}
<td>{% if row[key] %}{{ "%.3f"|format(row[key].mean) }}
<span class="quiet">[{{ "%.2f"|format(row[key].low) }}, {{ "%.2f"|format(row[key].high) }}]</span>
{% else %}-{% endif %}
<span class="quiet">floor {{ "%.3f"|format(floor[name][key].mean) if floor[name][key] else "-" }}</span></td>
{% endfor %}
</tr>
{% endfor %}
</table>
<p class="quiet">Brackets: 95 % interval over tasks. Floor: a player that never calls a tool.
Marks: checks passed; of a task with gold calls, its turns by the RODS rule.
{% if episodes|length < num_episodes %}Shown: {{ episodes|length }} of {{ num_episodes }} episodes.{% endif %}</p>
{% macro why(reasons) %}
<table>
<tr><th class="bad"><b>why it failed</b></th><th>expected</th><th>found</th></tr>
{% for reason in reasons %}
<tr><td>{{ reason.where }}</td><td><pre>{{ reason.expected }}</pre></td><td><pre>{{ reason.found }}</pre></td></tr>
{% endfor %}
</table>
{% endmacro %}
{% macro dialogue(record) %}
{% set slips = slips_of(record) %}
<ul class="checks">
{% for name in checks_of(record) %}
<li><i class="{{ 'good' if record.rods[loop.index0] else 'bad' }}">{{ "✓" if record.rods[loop.index0] else "✗" }}</i>
{{ name|cut }}</li>
{% endfor %}
</ul>
<p>Ended: {{ record.ended or "not by either side" }}{% if record.blame %}, blamed on the {{ record.blame }}{% endif %}.</p>
{% for item in record|dialogue %}
{% if item.line is none %}
{% if item.move.reasoning %}<pre class="quiet">{{ item.move.reasoning|cut }}</pre>{% endif %}
{% if item.unread %}<div class="line of-agent"><small>agent, unread</small><pre>{{ item.move.text|cut }}</pre></div>{% endif %}
{% else %}
{% set line = item.line %}
<div class="line of-{{ 'user' if line.who == 'user' else 'agent' }}">
<small>{{ line.who }}{{ ", result" if line.result else ", calls" if line.calls }}</small>
{% if line.text %}<pre class="{{ ('back' if line.ok else 'back bad') if line.result }}">{{ line.text|cut }}</pre>{% endif %}
{% for call in line.calls %}<pre>→ {{ call|call|cut }}</pre>{% endfor %}
{% for slip in slips if slip.place == item.place %}
<p class="bad"><b>{{ slip.who }}: {{ slip.kind }}</b> {{ slip.about }}</p>
{% endfor %}
</div>
{% endif %}
{% endfor %}
{% for slip in slips if slip.place >= record.lines|length %}<p class="bad"><b>{{ slip.who }}: {{ slip.kind }}</b></p>{% endfor %}
{% endmacro %}
{% for policy, number in policies %}
<details class="policy"><summary>The agent's policy ({{ number }} tasks)</summary><pre>{{ policy }}</pre></details>
{% endfor %}
<input type="checkbox" id="only"><label for="only"> only episodes that did not pass</label>
{% for task, record in episodes %}
<details class="{{ 'passed' if record.rods|min and not record.failure else 'failed' }}">
<summary>
{% for ok in record.rods %}<i class="{{ 'good' if ok else 'bad' }}">{{ "✓" if ok else "✗" }}</i>{% endfor %}
 {{ task.id }} #{{ record.rollout }} <span class="quiet">{{ task.category }}, {{ record.moves|length }} actions,
official: {{ "passed" if record.official|min else "not passed" }}
{{- ", final state reached" if record.state }}
{{- ", failed by infrastructure" if record.failure }}</span></summary>
{% if task.id in disputed %}<p><b>Disputed gold:</b> {{ disputed[task.id] }}</p>{% endif %}
{% if record.failure %}<p class="bad"><b>Failed by infrastructure:</b> {{ record.failure|cut }}</p>{% endif %}
{% if record.truncated %}<p class="bad"><b>Ended early:</b> {{ record.truncated|cut }}</p>{% endif %}
{% if record.lines %}{{ dialogue(record) }}{% else %}
{% set by_turn = record.rods|length == task.turns|length %}
{% for number in range((record.moves|map(attribute="turn")|list + [task.turns|length - 1])|max + 1) %}
{% set turn = task.turns[number] if number < task.turns|length else none %}
<section class="{{ 'good' if (record.rods[number] if by_turn and turn else record.rods|min) else 'bad' }}">
<pre class="user">{{ turn.user|cut if turn else "(the world's own words)" }}</pre>
{% if turn and turn.released_tools %}<p class="quiet">released: {{ turn.released_tools|join(", ") }}</p>{% endif %}
{% for move in record.moves if move.turn == number %}
{% if move.reasoning %}<pre class="quiet">{{ move.reasoning|cut }}</pre>{% endif %}
{% if move.text %}<pre>{{ move.text|cut }}</pre>{% endif %}
{% for call in move.calls %}<pre>→ {{ call|call|cut }}</pre>{% endfor %}
{% for text in move.observations %}<pre class="back">{{ text|cut }}</pre>{% endfor %}
<span class="quiet">{{ codes[move.code] }}</span>
{% endfor %}
{% if by_turn and turn and not record.rods[number] %}
{{ why(record.reasons[number]) }}
<p class="quiet">gold: {% if not turn.gold %}a plain answer{% endif %}</p>
{% for call in turn.gold %}<pre class="quiet">→ {{ call|call|cut }}</pre>{% endfor %}
{% endif %}
</section>
{% endfor %}
{% if not by_turn %}{{ why(record.reasons|sum(start=())) }}{% endif %}
{% endif %}
</details>
{% endfor %}
</body>
</html>
"""


class Shown(NamedTuple):
    """A line of a conversation at its place; or the agent's move that led to the lines behind it."""

    line: Line | None
    place: int = -1
    move: Move | None = None
    unread: bool = False  # of a move: no line holds what it says


def write_page(
    path: Path, title: str, domain: Domain, tasks: Sequence[Task], records: Sequence[Record], result: Mapping[str, Json]
) -> None:
    """The first rollouts of every task, as many as MAX_EPISODES allows and at least one."""
    by_id = {task.id: task for task in tasks}
    told = [(reading, task) for task in tasks if (reading := domain.of(task).reading)]

    def checks_of(record: Record) -> Sequence[str]:
        reading = domain.of(by_id[record.task_id]).reading
        names = reading.checks(by_id[record.task_id]) if reading else ()
        return names if len(names) == len(record.rods) else [f"check {n + 1}" for n in range(len(record.rods))]

    per_task = max(1, MAX_EPISODES // len(tasks))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"cut": _cut, "call": _call, "dialogue": _dialogue}
    html = environment.from_string(_PAGE).render(
        title=title,
        rows=result["scores"]["rows"],
        floor=result["floor"],
        codes=CODES,
        disputed=result["disputed"],
        policies=Counter(reading.policy(task) for reading, task in told).most_common(),
        checks_of=checks_of,
        slips_of=lambda record: slips_of(domain, by_id[record.task_id], record),
        episodes=[(by_id[r.task_id], r) for r in records if r.rollout < per_task],
        num_episodes=len(records),
    )
    # What a model wrote can hold halves of characters, which no file can.
    write_atomically(path, html.encode("utf-8", "replace").decode("utf-8"))


def _dialogue(record: Record) -> Iterator[Shown]:
    """All lines in their order, each move of the agent before those that it led to."""
    place = len(record.lines) - sum(move.num_lines for move in record.moves)
    yield from (Shown(line, before) for before, line in enumerate(record.lines[:place]))
    for move in record.moves:
        own = record.lines[place : place + move.num_lines]
        yield Shown(None, move=move, unread=not own or own[0].result)
        yield from (Shown(line, place + number) for number, line in enumerate(own))
        place += move.num_lines


def _cut(text: str) -> str:
    more = len(text) - MAX_CHARACTERS
    return text if more <= 0 else f"{text[:MAX_CHARACTERS]}... ({more} more characters)"


def _call(call: Call) -> str:
    arguments = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in call.arguments.items())
    return f"{call.name}({', '.join(arguments)})"
