"""A page of a run: what its pieces hold, that runs are only read, who is served, and what the command refuses."""

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from look_toy import HOSTILE, write_run

from rods_jax.commands.look import look
from rods_jax.look.ancestry import changes
from rods_jax.look.page import MARK, page
from rods_jax.look.pieces import addresses, piece, source
from rods_jax.look.serving import server
from rods_jax.metrics import open_metrics
from rods_jax.run.stages import NUM_TOKENS, spoken
from rods_jax.types import RolloutBatch


@pytest.fixture
def run(tmp_path):
    write_run(tmp_path / "run")
    return tmp_path / "run"


# ---------------------------------------------------------------------------------------- the pieces
def test_curves_have_every_number_of_every_step_and_what_follows_from_the_groups(run):
    metrics = piece(source([run]), "0/metrics")
    assert metrics["steps"] == [0, 1, 2, 3, 4, 5, 6]
    columns = metrics["columns"]
    assert columns["loss"] == [None, -0.1, -0.2, -0.3, -0.4, -0.5, -0.6] and columns["skipped"][1] == 0
    assert columns["held_out_progress"] == [0.25, *[None] * 6]
    assert columns["variance_mean"] == [None, 0.1, 0.1, 0.07, 0.07, 0.1, 0.1]  # (0.05 + 0.15 + 0.01) / 3
    assert columns["length_mean"] == [None, 10, 20, 30, 40, 50, 60]  # 80 tokens of 8 rollouts
    assert not {"stage", "rejections", "task_mean", "step"} & set(columns)


def test_the_pool_says_who_descends_from_whom_when_it_came_how_it_was_measured_and_why_it_left(run):
    pool = piece(source([run]), "0/pool")
    seed, *others, variant, grandchild = pool["rows"]
    assert pool["band"] == [0.25, 0.75] and pool["recorded"] and len(others) == 3
    assert (seed["id"], seed["parent"], seed["state"], seed["means"]) == ("seed_0", None, "in the pool", [0.1] * 6)
    assert (others[2]["means"], others[2]["variance"], others[2]["state"]) == ([], None, "in the pool")
    assert (variant["parent"], variant["written"], variant["entered"]) == ("seed_0", 1, 3)
    assert (variant["state"], variant["left"], variant["means"]) == ("left", (5, "mastered"), [0.9, 0.9])
    assert (grandchild["parent"], grandchild["state"], grandchild["entered"]) == ("seed_0~a", "in the queue", None)


def test_a_task_shows_each_measurement_its_turns_beside_its_parents_and_how_it_was_written(run):
    task = piece(source([run]), "0/task/4")
    assert task["id"] == "seed_0~a" and task["measured"] == [(3, 1, 0.9, 0.01), (4, 1, 0.9, 0.01)]
    assert task["turns"][0]["user"] == "Ask for that." != task["parent_turns"][0]["user"]
    assert task["turns"][1] == task["parent_turns"][1] and task["changes"] == []  # the world is the parent's
    assert (task["synthesis"]["dispatched"], len(task["synthesis"]["rejections"])) == (1, 1)
    assert task["trajectories"] == [(1, 1)]
    human = piece(source([run]), "0/task/0")
    assert human["parent_turns"] is None and human["synthesis"] is None and human["trajectories"] == [(1, 0)]


def test_changes_name_the_part_and_both_values():
    before, after = {"a": 1, "b": [1, {"c": "x"}], "d": 1}, {"a": 1, "b": [1, {"c": "y"}, 3], "d": True, "e": None}
    assert list(changes(before, after)) == [
        ("b.1.c", '"x"', '"y"'),
        ("b.2", None, "3"),
        ("d", "1", "true"),
        ("e", None, "null"),
    ]
    assert list(changes(before, before)) == []


def test_a_run_of_an_older_version_has_its_variants_enter_with_their_first_measurement(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    old = [{k: v for k, v in line.items() if k not in ("entered_ids", "left_ids")} for line in lines]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in old))
    pool = piece(source([run]), "0/pool")
    assert not pool["recorded"]
    assert [(row["state"], row["entered"]) for row in pool["rows"][-2:]] == [("in the pool", 3), ("in the queue", None)]


def test_trajectories_synthesis_settings_and_differences(run, tmp_path):
    write_run(tmp_path / "other", seed=1, extra={"sizes": [1, 2]})
    found = source([run, tmp_path / "other"])
    first, second = piece(found, "0/trajectories")["rows"]
    assert (first["reward"], first["passed"], second["task_id"]) == (0.5, [True, False], "seed_0~a")
    shown = piece(found, "0/trajectory/0")
    assert (
        len(shown["turns"]) == 2
        and shown["log_probs"] == [[-0.01, -3.0], [-0.7]]
        and shown["codes"]["1"] == "turn passed"
    )
    synthesis = piece(found, "0/synthesis")
    assert synthesis["reasons"] == [("vm_exec_failed", 3)] and [row["variant"] for row in synthesis["rows"]] == [
        "seed_0~a",
        None,
        "seed_0~a~b",
    ]
    assert piece(found, "0/outcome/1")["rejections"][1]["functions"] == ["find_day"]
    assert piece(found, "0/settings")["config"]["replay.lower"] == 0.25
    assert piece(found, "differences")["rows"] == [["seed", 0, 1], ["extra.sizes", None, [1, 2]]]
    assert [one["name"] for one in piece(found, "runs")["runs"]] == ["run", "other"]


def test_a_conversation_opens_with_what_its_user_said_and_not_with_the_words_of_the_task(run):
    said = [("agent", "Hello?", False), ("user", "My lamp is dark.", False), ("agent", "Is it plugged in?", False)]
    said += [("user", "It is.", False)]
    lines = [{"who": who, "text": text, "calls": [], "result": result, "ok": True} for who, text, result in said]
    step = {"turn": 0, "text": "Is it plugged in?", "code": 1, "observations": ["user: It is."], "num_lines": 2}
    kept = {"task_id": "seed_0", "rollout": 0, "passed": [True], "steps": [step], "lines": lines, "reward": 1.0}
    with open_metrics(run / "trajectories.jsonl", resume_step=1) as write:
        write(2, kept)
    first, second = (piece(source([run]), f"0/trajectory/{number}")["turns"] for number in (0, 2))
    assert second == [first[0] | {"user": "My lamp is dark."}, first[1]] and first[0]["user"] != "My lamp is dark."


def test_a_table_of_results_has_a_column_for_each_key(tmp_path):
    (tmp_path / "study.jsonl").write_text(
        '{"arm": "a", "score": {"mean": 0.5}}\n{"arm": "b", "n": [1, 2]}\n{"arm": "torn'
    )
    table = piece(source([tmp_path / "study.jsonl"]), "table/0")
    assert table == {"columns": ["arm", "score.mean", "n"], "rows": [["a", 0.5, None], ["b", None, [1, 2]]], "total": 2}


def test_a_table_that_grows_has_another_stamp(tmp_path):
    (tmp_path / "study.jsonl").write_text('{"arm": "a"}\n')
    found = source([tmp_path / "study.jsonl"])
    before = piece(found, "runs")
    with (tmp_path / "study.jsonl").open("a") as file:
        file.write('{"arm": "b"}\n')
    after = piece(found, "runs")
    assert before["tables"] == after["tables"] == ["study.jsonl"] and [one[1] for one in after["stamp"]] == [26]
    assert before["stamp"] != after["stamp"]


# -------------------------------------------------------------------------- runs as they may be found
def test_a_link_that_leads_nowhere_hides_no_settings(run):
    (run / "latest").symlink_to("gone")
    found = piece(source([run]), "0/settings")
    names = [name for name, _, _ in found["files"]]
    assert found["config"]["replay.lower"] == 0.25 and "config.json" in names and "latest" not in names


def test_a_run_that_is_being_written_is_shown_as_far_as_it_is(run):
    found = source([run])
    before = piece(found, "runs")["runs"][0]["stamp"]
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')
    assert piece(found, "0/metrics")["steps"][-1] == 6
    with (run / "metrics.jsonl").open("a") as file:
        file.write('ss": 1.5}\n')
    assert (
        piece(found, "0/metrics")["columns"]["loss"][-1] == 1.5 and piece(found, "runs")["runs"][0]["stamp"] != before
    )


def test_what_is_missing_is_said(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    found = source([tmp_path / "run"])
    standing = piece(found, "runs")["runs"][0]
    assert len(standing["missing"]) == 4 and standing["written"] is None and not standing["finished"]
    pieces = {address: piece(found, address) for address in addresses(found)}
    assert not [address for address, value in pieces.items() if "problem" in value]
    assert pieces["0/metrics"] == {"steps": [], "columns": {}} and pieces["0/pool"]["rows"] == []


@pytest.mark.parametrize(
    "summary, finished",
    [("{}", True), ('{"finished": true}', True), ('{"finished": false}', False), ("{", False), (None, False)],
)
def test_a_run_is_finished_where_its_summary_says_so_or_is_of_an_older_version(run, summary, finished):
    if summary is not None:
        (run / "summary.json").write_text(summary)
    assert piece(source([run]), "runs")["runs"][0]["finished"] is finished


@pytest.mark.parametrize(
    "log, line, sentence",
    [
        ("metrics.jsonl", "nonsense\n", "metrics.jsonl, line 8: not JSON"),
        ("candidates.jsonl", "[1]\n", "candidates.jsonl, line 4: it must be an object"),
        ("candidates.jsonl", '{"step": 9}\n', "another version of rods_jax wrote it otherwise"),
        ("metrics.jsonl", '{"step": 9, "task_ids": 3}\n', "another version of rods_jax wrote it otherwise"),
    ],
)
def test_damage_is_a_sentence_in_its_place_and_nothing_else_is_lost(run, log, line, sentence):
    with (run / log).open("a") as file:
        file.write(line)
    found = source([run])
    assert sentence in piece(found, "0/pool")["problem"]
    assert len(piece(found, "0/trajectories")["rows"]) == 2


def test_a_row_that_a_resumed_run_took_back_is_a_sentence_and_an_address_of_none_an_error(run):
    found = source([run])
    assert "not there any more" in piece(found, "0/task/99")["problem"]
    for address in (
        "",
        "9/pool",
        "0/nothing",
        "pool",
        "0/pool/1",
        "../config.json",
        "0/task/-1",
        "0/task/1e3",
        "table",
    ):
        with pytest.raises(KeyError):
            piece(found, address)


def test_looking_changes_nothing(run):
    tree = lambda: {p: (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in run.rglob("*")}
    before, found = tree(), source([run])
    page({address: piece(found, address) for address in addresses(found)})
    assert tree() == before


# ----------------------------------------------------------------------------------- page and server
def test_the_page_loads_nothing_and_ends_no_element_early(tmp_path):
    write_run(tmp_path / "run", words=" ".join(HOSTILE))
    found = source([tmp_path / "run"])
    html, policy = page({address: piece(found, address) for address in addresses(found)})
    assert html.startswith(MARK) and policy in html and policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy and "connect-src 'none'" in policy
    assert html.count("</script>") == 3 and html.count("<script") == 3 and "<img" not in html and "<iframe" not in html
    assert set(re.findall(r'(?:src|href)="([^"]*)"', html)) == {"data:,"}
    (data,) = re.findall(r'<script type="application/json" id="data">(.*)</script>', html)
    assert json.loads(data)["0/task/4"]["turns"][0]["user"] == " ".join(HOSTILE)


@contextmanager
def serving(paths):
    found = source(paths)
    with server(lambda address: piece(found, address)) as one:
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield one.server_address
        finally:
            one.shutdown()
            thread.join()


def asked(address, path, method="GET", **headers):
    connection = http.client.HTTPConnection(*address)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer, body


def test_the_server_answers_this_machine_under_its_own_name_alone(run):
    with serving([run]) as (host, port):
        assert host == "127.0.0.1"
        answer, html = asked((host, port), "/")
        assert answer.status == 200 and html == page()[0]
        policy = answer.getheader("Content-Security-Policy")
        assert (
            "connect-src 'self'" in policy
            and policy.endswith("frame-ancestors 'none'")
            and answer.getheader("Cross-Origin-Resource-Policy") == "same-origin"
        )
        answer, body = asked((host, port), "/data/0/pool", Host=f"localhost:{port}")
        assert answer.status == 200 and len(json.loads(body)["rows"]) == 6
        for name in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", ""):
            answer, body = asked((host, port), "/data/0/pool", Host=name)
            assert answer.status == 403 and "rows" not in body
        for path in ("/data/0/../config.json", "/data/%2e%2e/config.json", "/config.json", "/data/"):
            assert asked((host, port), path)[0].status == 404
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD"):
            assert asked((host, port), "/data/0/pool", method=method)[0].status == 501


# ---------------------------------------------------------------------------------------- the command
def test_one_file_replaces_a_page_of_ours_and_nothing_else(run, tmp_path, capsys):
    out = tmp_path / "page.html"
    look((run,), out=out)
    first = out.read_text()
    with open_metrics(run / "metrics.jsonl", resume_step=6) as write:
        write(7, {"loss": 1.0})
    look((run,), out=out)
    assert first.startswith(MARK) and out.read_text() != first
    out.write_text("<!DOCTYPE html>\nmine")
    with pytest.raises(SystemExit, match="2"):
        look((run,), out=out)
    assert out.read_text() == "<!DOCTYPE html>\nmine" and "is no page of this command" in capsys.readouterr().out


@pytest.mark.parametrize(
    "paths, options, sentence",
    [
        ((), {}, "give a run directory"),
        (("nowhere",), {}, "nowhere is neither a run directory nor a file of results"),
        (("run",), {"port": 70000}, "port must be between 0 and 65535: got 70000"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_a_sentence(run, capsys, paths, options, sentence):
    with pytest.raises(SystemExit, match="2"):
        look(tuple(run.parent / path for path in paths), **options)
    assert sentence in capsys.readouterr().out


def test_the_command_says_where_the_page_is_and_ctrl_c_ends_it(run):
    command = [sys.executable, "-u", "-m", "scripts.look", str(run)]
    with subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, text=True) as process:
        host, port = re.search(r"http://(127\.0\.0\.1):(\d+)", process.stdout.readline()).groups()
        assert json.loads(asked((host, int(port)), "/data/runs")[1])["runs"][0]["name"] == "run"
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130


def test_a_port_that_is_taken_is_refused(run, capsys):
    with serving([run]) as (_, port), pytest.raises(SystemExit, match="2"):
        look((run,), port=port)
    assert f"port {port} cannot be served" in capsys.readouterr().out


# ------------------------------------------------------------------------- what a run writes for it
def test_a_kept_rollout_has_the_log_probabilities_of_the_policys_tokens_message_by_message():
    acted = np.array([[[1, 1, 0, 0, 1, 0]], [[1] * 6]], bool)
    tokens, log_probs = np.arange(12).reshape(2, 1, 6), -np.arange(12, dtype=np.float32).reshape(2, 1, 6) / 3
    some = dict.fromkeys(RolloutBatch._fields, np.zeros((2, 1)))
    some |= {
        "action_mask_NGS": acted,
        "suffix_tokens_NGS": tokens,
        "behavior_log_probs_NGS": log_probs,
        "rewards_NG": np.array([[0.25], [1]]),
    }
    kept = spoken(RolloutBatch(**some), 0, str)
    assert kept == {"reward": 0.25, "tokens": [["[0]", "[1]"], ["[4]"]], "log_probs": [[0.0, -0.3333], [-1.3333]]}
    assert spoken(RolloutBatch(**some | {"action_mask_NGS": acted & False}), 0, str)["tokens"] == []
    long = np.ones((1, 1, NUM_TOKENS + 1))
    some |= {
        "action_mask_NGS": long > 0,
        "suffix_tokens_NGS": long.astype(int),
        "behavior_log_probs_NGS": -long,
        "rewards_NG": np.zeros((1, 1)),
    }
    assert [len(message) for message in spoken(RolloutBatch(**some), 0, str)["tokens"]] == [NUM_TOKENS]
