"""Values of a configuration as they are written, and where two of them differ."""

from rods_jax.fields import differences, plain_values


def test_an_object_that_can_be_called_is_written_as_its_class():
    class Keep:
        def __call__(self, passed, checks):
            return True

    assert plain_values(Keep()) == f"{__name__}:{Keep.__qualname__}"


def test_differences_are_paths_and_tell_types_apart():
    assert differences({"a": 1}, {"b": 1}) == ("a", "b")
    assert differences({"a": 1}, {"a": True}) == ("a",)
    assert differences({"a": [1]}, {"a": [1, 2]}) == ("a",)
