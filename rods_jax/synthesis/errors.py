"""Why a synthesis attempt ended: the paper's 12 error types and two of ours, which patch, what they teach.

The pipeline turns each into a counted record.  A gate or the judge that refuses a finished task goes by its
own name instead, and drops the attempt in the same way.
"""

from collections.abc import Mapping, Sequence

PARAM_GEN_FAILED = "param_gen_failed"  # no value for a required argument, none for a reference, or off-schema
DECOMPOSE_FAILED = "decompose_failed"  # a planned function is no tool, and nothing tells which tools it stands for
FUNC_SAMPLE_FAILED = "func_sample_failed"  # no function is left, or one runs and neither shows nor changes anything
VM_EXEC_FAILED = "vm_exec_failed"  # the simulator refused the call
DUPLICATE_FUNC = "duplicate_func"  # the same call twice in one turn
QUERY_GEN_FAILED = "query_gen_failed"  # no usable wording of a turn
QUERY_VERIFY_FAILED = "query_verify_failed"  # a wording does not ask for all and only what the calls do
QUERY_VERIFY_NO_TAG = "query_verify_no_tag"  # the verifier gave no verdict
CONVERSATION_CONSTRUCT_FAILED = "conversation_construct_failed"  # wording the whole, or augmentation, impossible
NO_PROMPTS = "no_prompts"  # a class of which no role can be told anything: it has no tools
NO_PATTERN = "no_pattern"  # the profile has no plan in this domain, or no usable plan was written
PIPELINE_EXCEPTION = "pipeline_exception"  # anything else, a server that does not answer among it

# Ours: what a model's plan, arguments or words do to the seed's structure.
STRUCTURE_LOST = "structure_lost"  # values flow between other calls than in the seed
LAYOUT_TOO_LONG = "layout_too_long"  # the seed has more turns than a planner is asked for; none is cut away

JUDGE = "judge"  # the finished task was refused, and refining it was impossible or in vain

PATCHABLE = (PARAM_GEN_FAILED, DECOMPOSE_FAILED, FUNC_SAMPLE_FAILED, VM_EXEC_FAILED)

# What the next plan is told, by error type (RODS Appendix E for the paper's 12).
ADVICE: Mapping[str, str] = {
    PARAM_GEN_FAILED: "Choose functions whose required arguments the state or an earlier output can supply.",
    DECOMPOSE_FAILED: "Choose only functions that are listed, by their exact names.",
    FUNC_SAMPLE_FAILED: "Avoid functions that need a login or a special state before they do anything.",
    VM_EXEC_FAILED: "Avoid this path, and choose functions that fit the state as it is after the patches.",
    DUPLICATE_FUNC: "Do not plan functions that would be called twice with the same arguments in one turn.",
    QUERY_GEN_FAILED: "Choose a simpler combination of functions, which one sentence can ask for.",
    QUERY_VERIFY_FAILED: "Choose functions of a turn such that one request asks for all of them and for no more.",
    QUERY_VERIFY_NO_TAG: "Choose functions whose purpose is plain, so that a request for them is easy to verify.",
    CONVERSATION_CONSTRUCT_FAILED: "Plan turns that are independent of each other and clearly ordered.",
    NO_PROMPTS: "Use only classes whose functions are listed.",
    NO_PATTERN: "Keep exactly to the layout: the class and the number of functions of every turn.",
    PIPELINE_EXCEPTION: "Plan something simpler and entirely different.",
    STRUCTURE_LOST: "Choose functions of which each returns what the later one of its flow cannot do without.",
}


class Rejected(Exception):
    """Ends an attempt: an error type or a gate's name, a detail, the tools to avoid in the next attempts."""

    def __init__(self, error: str, detail: str, functions: Sequence[str] = ()):
        super().__init__(f"{error}: {detail}")
        self.error = error
        self.detail = detail
        self.functions = tuple(functions)


class Unanswered(Rejected):
    """A server did not answer a role; `reason` is the reply's error, of chat.py."""

    def __init__(self, role: str, reason: str, detail: str):
        super().__init__(PIPELINE_EXCEPTION, f"{role}: {reason}: {detail}")
        self.reason = reason
