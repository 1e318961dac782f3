"""Split files of others: the ids are read, whatever holds them; what names no task is refused with its place."""

import json

import pytest

from rods_jax.environments import bfcl
from rods_jax.environments.bfcl_splits import pick, read_ids

IDS = ("multi_turn_base_7", "multi_turn_miss_func_3")
ENVTUNING = [{"data_source": "bfcl", "extra_info": {"interaction_kwargs": {"id": one}}} for one in IDS]


@pytest.mark.parametrize(
    "name, text",
    [
        ("ids.txt", "multi_turn_base_7\n\n  multi_turn_miss_func_3\n"),
        ("ids.json", json.dumps(IDS)),
        ("rows.json", json.dumps(ENVTUNING)),
        ("rows.jsonl", "\n".join(json.dumps({"id": one, "question": []}) for one in IDS)),
        ("envtuning.jsonl", "\n".join(map(json.dumps, ENVTUNING))),
    ],
)
def test_ids_are_read_in_their_order(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    ids = read_ids(tmp_path / name)
    assert ids == IDS
    assert [task.id for task in pick(bfcl.load_tasks(), ids)] == list(IDS)


def test_a_parquet_file_is_read_where_pyarrow_is(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ENVTUNING), tmp_path / "val.parquet")
    assert read_ids(tmp_path / "val.parquet") == IDS


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "names no task"),
        ("a\na\n", "names a twice"),
        ('{"id": "a"}\n{"id": 3}\n', "row 2 names no task"),
        ('{"id": "a"}\n{"id": \n', "line 2"),
        ("[" * 5000, ""),
    ],
)
def test_what_names_no_task_is_refused_with_its_place(tmp_path, text, sentence):
    (tmp_path / "split").write_text(text)
    with pytest.raises(ValueError, match=f"split.*{sentence}"):
        read_ids(tmp_path / "split")


def test_a_line_ends_at_a_line_feed_alone_and_ids_may_come_from_a_generator(tmp_path):
    (tmp_path / "split").write_text(
        f'{{"id": "{IDS[0]}", "note": "a\u2028b\u0085c"}}\r\n{IDS[1]}\n', "utf-8", newline=""
    )
    assert read_ids(tmp_path / "split") == tuple(IDS[:2])
    tasks = bfcl.load_tasks()
    assert [task.id for task in pick(tasks, iter(IDS[:2]))] == list(IDS[:2])


def test_an_id_that_bfcl_lacks_is_named():
    with pytest.raises(ValueError, match="1 ids of the split are no BFCL task's, the first is 'multi_turn_base_200'"):
        pick(bfcl.load_tasks(), (*IDS, "multi_turn_base_200"))
