"""What a patch does to a state: merged deeply, nothing in place, a dot kept in its key."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from synthesis_toy import TASK, TOY

from rods_jax.synthesis.patch import Patch, accept_patches, deep_merge, split_path


def test_a_backslash_keeps_a_dot_in_its_key():
    assert split_path(r"root.notes\.txt.content") == ("root", "notes.txt", "content")


def test_a_patch_without_a_path_is_refused_for_that():
    patches = [Patch("Library", (), 1), Patch("Library", ("a",) * 13, 1)]
    assert accept_patches(TOY, TASK.world, patches) == (
        {},
        ("Library.: the path is empty", f"Library.{'.'.join('a' * 13)}: too long"),
    )


NESTED = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
)
TREES = st.dictionaries(st.sampled_from("abc"), NESTED, max_size=3)


@settings(deadline=None, max_examples=100)
@given(TREES, TREES, TREES)
def test_deep_merge(base, change, later):
    before = json.dumps(base), json.dumps(change)
    merged = deep_merge(base, change)
    assert (json.dumps(base), json.dumps(change)) == before  # nothing is changed in place
    assert merged == deep_merge(merged, change) and deep_merge(base, {}) == base and deep_merge({}, change) == change
    assert set(merged) == set(base) | set(change)
    for key in merged:
        if isinstance(base.get(key), dict) and isinstance(change.get(key), dict):
            assert merged[key] == deep_merge(base[key], change[key])
        else:
            assert merged[key] == (change[key] if key in change else base[key])
