"""One self-contained HTML page of trajectories: turn by turn what was called, what came back, why a turn failed.

Nothing on the page can run: every value is escaped, and the page's own policy forbids scripts and requests.
Left out on purpose: episodes beyond MAX_EPISODES; all of them are in the journal.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2

from rods_jax.dialogue import Record
from rods_jax.evaluation import CODES
from rods_jax.files import write_atomically
from rods_jax.types import Call, Json, Task

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
:root { color-scheme: light dark; --good: #2f8f7f; --bad: #c2571a; --soft: #8882; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.2rem; }
table { border-collapse: collapse; margin: .5rem 0 1rem; }
th, td { text-align: left; vertical-align: top; padding: .15rem .8rem .15rem 0; }
tr { border-bottom: 1px solid var(--soft); }
pre { margin: .2rem 0; white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.4 ui-monospace, monospace; }
summary { cursor: pointer; padding: .2rem 0; }
section { margin: .6rem 0 .6rem 1rem; padding-left: .8rem; border-left: 3px solid var(--good); }
section.bad { border-color: var(--bad); }
i.good { color: var(--good); } i.bad, .bad > b { color: var(--bad); }
i { font-style: normal; } .quiet { opacity: .65; } .user { font-weight: 600; }
.back { padding-left: 1.2rem; border-left: 1px solid var(--soft); margin-left: .3rem; }
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
{% set by_turn = record.rods|length == task.turns|length %}
{% for number in range((record.moves|map(attribute="turn")|list + [task.turns|length - 1])|max + 1) %}
{% set turn = task.turns[number] if number < task.turns|length else none %}
<section class="{{ 'good' if (record.rods[number] if by_turn and turn else record.rods|min) else 'bad' }}">
<pre class="user">{{ record.opening[-1][1]|cut if record.opening and not number else turn.user|cut if turn else "(the world's own words)" }}</pre>
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
</details>
{% endfor %}
</body>
</html>
"""


def write_page(
    path: Path, title: str, tasks: Sequence[Task], records: Sequence[Record], result: Mapping[str, Json]
) -> None:
    """The first rollouts of every task, as many as MAX_EPISODES allows and at least one."""
    by_id = {task.id: task for task in tasks}
    per_task = max(1, MAX_EPISODES // len(tasks))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"cut": _cut, "call": _call}
    html = environment.from_string(_PAGE).render(
        title=title,
        rows=result["scores"]["rows"],
        floor=result["floor"],
        codes=CODES,
        disputed=result["disputed"],
        episodes=[(by_id[r.task_id], r) for r in records if r.rollout < per_task],
        num_episodes=len(records),
    )
    # What a model wrote can hold halves of characters, which no file can.
    write_atomically(path, html.encode("utf-8", "replace").decode("utf-8"))


def _cut(text: str) -> str:
    more = len(text) - MAX_CHARACTERS
    return text if more <= 0 else f"{text[:MAX_CHARACTERS]}... ({more} more characters)"


def _call(call: Call) -> str:
    arguments = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in call.arguments.items())
    return f"{call.name}({', '.join(arguments)})"
