"""Journals between trainer and workers that were torn, edited or written by others: recovered, or refused by line."""

import gc
from pathlib import Path

import pytest
from beside_toy import AUTHOR, SEEDS
from chat_server import chat_server
from synthesis_toy import TASK
from trainer_and_workers import at_first_go, author_with, serve, trainer, workers

from rods_jax import journal
from rods_jax.chat import Endpoint, http_generate
from rods_jax.journal import Entry, InUse, JournalError
from rods_jax.synthesis.author import Synthesis
from rods_jax.synthesis.courier.dispatch import UNREADABLE
from rods_jax.synthesis.courier.lines import OUTCOMES, WORK, outcome_record
from rods_jax.synthesis.courier.worker import working
from rods_jax.task_files import task_to_json


def settled(directory: Path, count: int = 3) -> None:
    with trainer(directory) as ours, workers(directory):
        ours.send(*SEEDS[:count])
        ours.receive(count)


def edit(path: Path, line: int) -> None:
    lines = path.read_text().split("\n")
    lines[line - 1] = lines[line - 1].replace('"step"', '"stop"').replace('"error"', '"eror"')
    path.write_text("\n".join(lines))


@pytest.mark.parametrize("name", ["seeds.jsonl", OUTCOMES])
def test_an_edited_journal_is_refused_with_its_line(tmp_path, name):
    settled(tmp_path)
    edit(tmp_path / name, 3)
    with pytest.raises(JournalError, match=f"{name}, line 3: it was changed"), trainer(tmp_path):
        pass
    with working(tmp_path, AUTHOR, workers=2, tell=(told := []).append, poll=0.005) as threads:
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    assert len(told) == 1 and f"{name}, line 3: it was changed" in told[0]


def test_outcomes_that_are_edited_under_way_stop_no_training(tmp_path):
    with trainer(tmp_path) as ours:
        ours.send(*SEEDS[:2])
        with journal.writing(tmp_path / OUTCOMES) as append:
            append(outcome_record(f"1/{SEEDS[0].id}", Synthesis(None)))
        ours.receive(1)
        with (tmp_path / OUTCOMES).open("a") as file:
            file.write('["0123456789abcdef", {"key": "1/x"}]\n')
        ours.send()
        ours.send()
    assert len(ours.told) == 1 and "line 3: it was changed" in ours.told[0]
    assert "training goes on with the pool it has" in ours.told[0]


def test_an_outcome_that_nobody_waits_for_ends_the_taking_and_the_next_start(tmp_path):
    """A line too many would shift what a checkpoint counts."""
    with trainer(tmp_path) as ours:
        ours.send(*SEEDS[:3])
        with journal.writing(tmp_path / OUTCOMES) as append:
            append(*(outcome_record(f"1/{seed.id}", Synthesis(None)) for seed in SEEDS[:2]))
            ours.receive(2)
            append(outcome_record(f"1/{SEEDS[0].id}", Synthesis(None)))
            ours.send()
            append(outcome_record(f"1/{SEEDS[2].id}", Synthesis(None)))
            ours.send()
    assert len(ours.received) == 2 and len(ours.told) == 1
    assert f"outcomes.jsonl, line 4: 1/{SEEDS[0].id} does not wait for an outcome" in ours.told[0]
    with pytest.raises(JournalError, match="line 4"), trainer(tmp_path, 2):
        pass


def test_a_torn_last_line_of_any_journal_costs_nothing(tmp_path):
    with trainer(tmp_path) as ours, workers(tmp_path):
        ours.send(*SEEDS[:3])
        expected = ours.receive(3)
    for path in (tmp_path / "seeds.jsonl", tmp_path / OUTCOMES):
        path.write_bytes(path.read_bytes()[:-7])
    with trainer(tmp_path) as ours, workers(tmp_path):
        ours.send(*SEEDS[:3])
        assert ours.receive(3) == expected


def test_an_edited_journal_of_one_seed_costs_that_seed_alone(tmp_path):
    with trainer(tmp_path) as ours:
        ours.send(*SEEDS[:2])
        with chat_server(serve) as (url, _):
            budget = Endpoint(url=url, model="m", max_total_tokens=600)
            with working(tmp_path, author_with(http_generate(budget)), workers=1, tell=print) as (thread,):
                thread.join(60)
        (begun,) = (tmp_path / WORK).iterdir()
        begun.write_text(begun.read_text().replace("tokens", "tokers", 1))
        with workers(tmp_path) as told:
            ours.receive(1)
    assert len(told) == 1 and f"{begun.name}, line 2: it was changed" in told[0] and "is passed over" in told[0]


def test_a_variant_of_another_version_is_counted_and_said_once(tmp_path):
    with trainer(tmp_path) as ours:
        ours.send(*SEEDS[:3])
        with journal.writing(tmp_path / OUTCOMES) as append:
            for seed in SEEDS[:2]:
                record = outcome_record(f"1/{seed.id}", Synthesis(at_first_go(seed, 1).candidate or TASK))
                append(record | {"candidate": record["candidate"] | {"version": 3}})
        with workers(tmp_path):
            results = ours.receive(3)
    assert [results[seed.id, 1].candidate for seed in SEEDS[:2]] == [None, None]
    assert [r.error for seed in SEEDS[:2] for r in results[seed.id, 1].rejections] == [UNREADABLE] * 2
    assert results[SEEDS[2].id, 1] == at_first_go(SEEDS[2], 1)
    (sentence,) = ours.told
    assert "outcomes.jsonl, line 2: field version must be 2: got 3" in sentence


def test_a_seed_of_another_version_ends_the_worker(tmp_path):
    record = {"key": "1/x", "step": 1, "random": "0", "task": task_to_json(TASK) | {"version": 3}}
    with journal.writing(tmp_path / "seeds.jsonl") as append:
        append(record)
    with working(tmp_path, AUTHOR, workers=1, tell=(told := []).append, poll=0.005) as (thread,):
        thread.join(60)
    assert not thread.is_alive()
    (sentence,) = told
    assert "seeds.jsonl, line 2: field version must be 2: got 3" in sentence


def test_a_trainer_keeps_no_outcome_that_it_has_taken(tmp_path):
    """A run takes outcomes for days, each with all attempts and exchanges."""
    settled(tmp_path, 2)
    with trainer(tmp_path, 2):
        gc.collect()
        kept = [one for one in gc.get_objects() if isinstance(one, Entry) and "candidate" in one.record]
        assert kept == []


def test_a_checkpoint_that_the_journal_does_not_know_is_refused(tmp_path):
    settled(tmp_path, 2)
    with pytest.raises(JournalError, match="holds 2 outcomes; the checkpoint has had 3"), trainer(tmp_path, 3):
        pass


def test_a_folder_has_one_trainer(tmp_path):
    with trainer(tmp_path), pytest.raises(InUse, match="seeds.jsonl is being written"), trainer(tmp_path):
        pass
