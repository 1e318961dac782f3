"""What hostile text cannot do: run in a browser, name a file outside the run directory, or learn a key.

Elsewhere: no text runs as code (test_import.py), the page by its tags (test_evaluate_runs.py), verdicts that tools
return (test_synthesis_llm.py), weights from safetensors alone (test_weights.py), what a BFCL call can reach
(test_bfcl_safety.py).
"""

import shutil
import subprocess
from dataclasses import replace
from functools import partial

import pytest
from beside_toy import SEEDS
from beside_train import judged
from chat_server import chat_server, send
from evaluate_toy import TASKS, run
from trainer_and_workers import serve, trainer, workers
from training_toy import play, toy

from rods_jax.chat import Endpoint, http_generate
from rods_jax.config import SynthesisConfig
from rods_jax.dialogue import Said, Stop
from rods_jax.dialogue import play as play_episode
from rods_jax.environments.conversation import AGENT, USER
from rods_jax.environments.scoring import RODS
from rods_jax.environments.workplace.domain import WORKPLACE
from rods_jax.run.trajectory_page import write_page
from rods_jax.synthesis.ask import ROLES
from rods_jax.types import Action, Call, Line

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OWNED = "document.documentElement.setAttribute('owned', 'yes')"
SCRIPTS = (
    f"</pre><script>{OWNED}</script>",
    f'"><img src=x onerror="{OWNED}"><svg onload="{OWNED}">',
    f"'><iframe srcdoc='<script>parent.{OWNED}</script>'></iframe><details open ontoggle={OWNED}>",
    f"{{{{ 7 * 7 }}}}</title></style><style>@import 'x'</style><body onload=\"{OWNED}\">",
)


def shown_by_browser(path) -> str:
    """The document after its scripts have run."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={path.parent / 'profile'}", "--virtual-time-budget=3000", "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path")
def test_a_browser_runs_nothing_that_a_model_wrote(tmp_path):
    said = [Said(text, Action(calls=(Call(text, {text: text}),))) for text in SCRIPTS]
    script = iter([*said, Said(SCRIPTS[0], Action(error=SCRIPTS[1])), Stop(truncated=SCRIPTS[2])])
    record = play_episode(WORKPLACE, TASKS[0], 0, lambda _: next(script), RODS)
    lines = [Line(who, text, (Call(text, {text: text}),)) for who in (AGENT, USER, SCRIPTS[1]) for text in SCRIPTS]
    talked = replace(record, rollout=1, lines=tuple(lines), ended=SCRIPTS[0], blame=SCRIPTS[1])
    records = [replace(record, failure=SCRIPTS[0]), talked]
    result, _ = run(tmp_path / "gold", player="gold")
    write_page(tmp_path / "page.html", SCRIPTS[3], WORKPLACE, [TASKS[0]], records, result)
    page = (tmp_path / "page.html").read_text()
    assert "owned" in page and "<html" in shown_by_browser(tmp_path / "page.html")
    # Neither the page as it is, nor without the policy that forbids scripts: escaping alone is enough.
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    assert policy in page
    (tmp_path / "bare.html").write_text(page.replace(policy, ""))
    for name in ("page.html", "bare.html"):
        assert 'owned="yes"' not in shown_by_browser(tmp_path / name)
    (tmp_path / "raw.html").write_text(f"<!DOCTYPE html><html><body><pre>{SCRIPTS[0]}</pre></body></html>")
    assert 'owned="yes"' in shown_by_browser(tmp_path / "raw.html")  # the browser would have told


def test_no_name_in_the_data_leads_out_of_the_run_directory(tmp_path):
    names = ("../../../owned", "/tmp/owned", "a/b/owned", "..", "owned\n", "C:\\owned")
    seeds = [replace(SEEDS[0], id=name, scenario=name) for name in names]
    run_dir = tmp_path / "deep" / "run" / "synthesis"
    with trainer(run_dir) as ours, workers(run_dir):
        ours.send(*seeds)
        results = ours.receive(len(seeds))
    assert {name for name, _ in results} == set(names)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and run_dir not in path.parents]
    assert not list(tmp_path.rglob("*owned*"))
    assert len(list((run_dir / "work").iterdir())) == len(names)


KEY = "sk-0123456789-very-secret"


def answered(handler, body, tried=[]):
    """Twice it refuses, and repeats the key; then it does its work."""
    tried.append(body)
    if len(tried) < 3:
        send(handler, {"error": f"bad key {handler.headers['authorization']}"}, status=400)
    else:
        serve(handler, body)


def endpoint_backends(url: str):
    return dict.fromkeys(ROLES, http_generate(Endpoint(url=url, model="m", api_key_env="HOSTILE_TEST_KEY")))


def test_a_key_reaches_the_server_and_no_file_or_word_of_the_run(tmp_path, monkeypatch, caplog, capfd):
    caplog.set_level(0)
    monkeypatch.setenv("HOSTILE_TEST_KEY", KEY)
    with chat_server(answered) as (url, requests):
        synthesis = SynthesisConfig(backends=partial(endpoint_backends, url), roles=judged, workers=1)
        said = play(toy(tmp_path / "run", synthesis=synthesis))
    assert len(requests) >= 3 and all(KEY in str(request["headers"]) for request in requests)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    written = b"".join(path.read_bytes() for path in files)
    assert b"HTTP 400" in written  # what the server said is kept, without the key
    assert KEY.encode() not in written and KEY not in said + caplog.text + "".join(capfd.readouterr())
    assert {path.name for path in files} >= {"config.json", "manifest.json", "outcomes.jsonl", "metrics.jsonl"}
