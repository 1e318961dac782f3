"""The typed failure of one synthesis attempt; the pipeline turns it into a counted record."""

from collections.abc import Sequence

# RODS Appendix E, less what only language models can raise; duplicate_func is the gate `distinct_calls`.
NO_PATTERN = "no_pattern"  # the profile has no plan in this domain
PARAM_GEN_FAILED = "param_gen_failed"  # no value for a required argument, or none for a reference
VM_EXEC_FAILED = "vm_exec_failed"  # the simulator refused every call that was tried
FUNC_SAMPLE_FAILED = "func_sample_failed"  # calls run, but none observes, changes or produces what it must
CONVERSATION_CONSTRUCT_FAILED = "conversation_construct_failed"  # wording or augmentation impossible
PIPELINE_EXCEPTION = "pipeline_exception"  # anything else


class Rejected(Exception):
    """Ends an attempt: one of the types above or a gate's name, a detail, the tools to avoid next time."""

    def __init__(self, error: str, detail: str, functions: Sequence[str] = ()):
        super().__init__(f"{error}: {detail}")
        self.error = error
        self.detail = detail
        self.functions = tuple(functions)
