"""What importing costs, who may import whom, what the wheel holds, and what product code never calls."""

import ast
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import pytest
from wheels import build_wheel

import rods_jax

ROOT = Path(__file__).parent.parent
PRODUCT = ("rods_jax", "models", "scripts", "configs")


# ------------------------------------------------------------------------------ the public kernels
def test_importing_the_package_needs_only_jax_numpy_and_chex():
    code = (
        "import sys, jax, numpy, jax.numpy, chex; before = {m.split('.')[0] for m in sys.modules}; import rods_jax;"
        "print(*sorted({m.split('.')[0] for m in sys.modules} - before - sys.stdlib_module_names));"
        "print(*(m for m in ('flax', 'optax', 'transformers', 'orbax', 'tokenizers') if m in sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert output.stdout.splitlines() == ["rods_jax", ""]


def test_functions_named_like_their_modules_work_either_way():
    from rods_jax.group_statistics import GroupStatistics, segment_group_statistics
    from rods_jax.log_probs import LogProbs

    assert rods_jax.group_statistics(jnp.array([[0.0, 1.0]])).variance_N == 0.25
    assert rods_jax.log_probs(jnp.ones((1, 1)), jnp.ones((2, 1)), jnp.array([0])).log_probs_T < 0
    assert rods_jax.segment_group_statistics is segment_group_statistics
    assert rods_jax.GroupStatistics is GroupStatistics and rods_jax.LogProbs is LogProbs


def test_all_names_exist():
    assert all(hasattr(rods_jax, name) for name in rods_jax.__all__)
    assert (rods_jax.HARD, rods_jax.BOUNDARY, rods_jax.MASTERED) == (0, 1, 2)


# ------------------------------------------------------------------------------- the import arrows
KERNELS = {"group_statistics", "boundary", "log_probs"}
STAGES = {
    "grpo", "generation", "rollout", "rewards", "curriculum", "demonstrations", "supervised",
    "synthesis", "replay", "checkpoint", "metrics", "policy_chat", "filtering", "samplers", "successes", "rows",
}  # fmt: skip
WORLD = {"environments", "codecs"}
TOP = {
    "loop",
    "dialogue",
    "evaluation",
    "held_out",
    "lengths",
    "checks",
    "dashboards",
    "evolution",
}  # wire the stages, and no stage knows them
HALL = {"run", "commands", "adapters", "look"}  # wire all of it: whoever is below knows none of them
HELPERS = {
    "types", "config", "task_files", "chat", "journal", "preemption", "keys", "processes", "sharding", "strict_json", "terminal",
    "fields", "files", "older", "chat_rows", "dialogue_files", "records", "micro_batches", "threads", "wire",
}  # fmt: skip
ALSO = {  # beyond types, the kernels and the helpers that are no stage
    "curriculum": ("environments.protocol", "environments.scoring"),  # the rules that a stage plays by
    "demonstrations": ("environments.episode", "environments.protocol", "environments.scoring"),
    "supervised": ("demonstrations",),
    "rollout": ("generation", "environments", "codecs", "rows"),
    "synthesis": ("environments.protocol", "environments.scoring"),
    "policy_chat": ("generation", "codecs"),
    "filtering": ("rollout",),
    "samplers": ("replay",),
    "successes": ("grpo",),
    # an episode records the diagnostic codes that the format reward counts; a user's thoughts are marked as the policy's are
    "environments": ("rewards", "codecs.grammar"),
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Dotted names of everything imported; `from a import b` yields a.b, relative imports are resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                package = parts[: len(parts) - node.level + is_package]
                base = ".".join([*package, base] if base else package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def allowed(importer: str, imported: str) -> bool:
    """Whether architecture's arrows let the module `importer` import the dotted name `imported`."""
    room, *inside = importer.split(".")
    target, *target_inside = imported.split(".")
    if target not in PRODUCT:
        return True
    if room == "models" and target == "rods_jax":  # what learns in a run, and what a run needs of a machine
        return inside[:1] in (["learner"], ["planning"]) or target_inside[:1] == ["files"]
    if room != "rods_jax":
        return not (room == "models" and target != "models")
    if target != "rods_jax":
        return False
    source, destination = inside[0] if inside else "", target_inside[0] if target_inside else ""
    if not source:
        return destination in KERNELS  # rods_jax/__init__.py re-exports the kernels
    if source == "types" or source in KERNELS:
        return False
    if source == destination:
        return True
    if destination in HALL:
        return source == "commands"
    if source in STAGES | WORLD and destination in STAGES | WORLD | TOP | {""}:
        path = ".".join(target_inside)
        return any(path == name or path.startswith(f"{name}.") for name in ALSO.get(source, ()))
    return True


def product_files() -> list[Path]:
    return sorted(path for name in PRODUCT for path in (ROOT / name).rglob("*.py"))


def test_every_module_has_its_place():
    modules = {
        path.stem for path in (ROOT / "rods_jax").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert modules == KERNELS | STAGES | WORLD | TOP | HALL | HELPERS | {"__init__"}


def test_no_file_has_more_than_400_lines():
    files = [*product_files(), *(ROOT / "tests").glob("*.py")]
    assert not [path.name for path in files if path.read_text("utf-8").count("\n") > 400]


def test_imports_follow_the_arrows():
    wrong = []
    for path in product_files():
        importer = module_name(path)
        for imported in imports(ast.parse(path.read_text("utf-8")), importer, path.name == "__init__.py"):
            if not allowed(importer, imported):
                wrong.append(f"{importer} -> {imported}")
    assert not wrong


def test_who_carries_orders_knows_no_author():
    """Of synthesis, courier/ may know the records, the recorded replies and the hashes, and none of the stages."""
    known = ("courier", "author", "attempt", "backends", "critique.content_hash")
    for path in (ROOT / "rods_jax/synthesis/courier").glob("*.py"):
        for imported in imports(ast.parse(path.read_text("utf-8")), module_name(path), path.name == "__init__.py"):
            _, synthesis, inside = imported.partition("rods_jax.synthesis.")
            assert not synthesis or any(inside == name or inside.startswith(f"{name}.") for name in known), imported


@pytest.mark.parametrize(
    "importer, statement, verdict",
    [
        ("rods_jax.types", "from rods_jax.config import Config", False),
        ("rods_jax.log_probs", "import rods_jax.types", False),
        ("rods_jax.log_probs", "import jax", True),
        ("rods_jax.grpo", "from rods_jax.log_probs import log_probs", True),
        ("rods_jax.grpo", "from rods_jax.replay import stage", False),
        ("rods_jax.grpo", "from rods_jax import replay", False),
        ("rods_jax.grpo", "from . import replay", False),
        ("rods_jax.grpo", "from rods_jax.loop import train", False),
        ("rods_jax.grpo", "from models.decoder import Decoder", False),
        ("rods_jax.loop", "from rods_jax.replay import stage", True),
        ("rods_jax.curriculum", "from rods_jax.config import Config", True),
        ("rods_jax.curriculum", "from rods_jax.replay import enter_stage", False),
        ("rods_jax.demonstrations", "from rods_jax.environments.scoring import gold_trace", True),
        ("rods_jax.demonstrations", "from rods_jax.environments.bfcl import split", False),
        ("rods_jax.demonstrations", "from rods_jax.codecs.qwen import qwen_codec", False),
        ("rods_jax.supervised", "from rods_jax.demonstrations import Demonstration", True),
        ("rods_jax.supervised", "from rods_jax.rollout import collect", False),
        ("rods_jax.rollout", "from rods_jax.supervised import demonstration_loss", False),
        ("rods_jax.replay", "from rods_jax.curriculum import stage_of", False),
        ("rods_jax.rollout", "from rods_jax.environments.episode import Episode", True),
        ("rods_jax.rollout", "from rods_jax.rewards import progress_reward", False),
        ("rods_jax.rewards", "from rods_jax.environments.scoring import turn_passed", False),
        ("rods_jax.synthesis.plan", "from .profile import Profile", True),
        ("rods_jax.synthesis.plan", "from ..replay import stage", False),
        ("rods_jax.synthesis.plan", "from rods_jax.environments.protocol import Domain", True),
        ("rods_jax.synthesis.plan", "from rods_jax.environments.bfcl import DOMAIN", False),
        ("rods_jax.environments.bfcl", "from rods_jax.replay import stage", False),
        ("rods_jax.codecs.qwen", "from rods_jax.rollout import collect", False),
        ("models.decoder", "from rods_jax.types import Policy", False),
        ("models.decoder", "from .layout import Layout", True),
        ("models.weights", "from rods_jax import files", True),
        ("models.learner", "from rods_jax.run.learner import Learner", True),
        ("models.planning.plan", "from ..learner import describe; from rods_jax.run.learning import learning", True),
        ("rods_jax.run.training", "from models.learner import decoder", False),
        ("rods_jax.run.training", "from rods_jax.loop import train", True),
        ("rods_jax.run.training", "from rods_jax.commands.common import running", False),
        ("rods_jax.loop", "from rods_jax.run import train", False),
        ("rods_jax.environments.bfcl", "from rods_jax.adapters import require", False),
        ("rods_jax.run.training", "from rods_jax.adapters import require", False),
        ("rods_jax.adapters.verifiers_env", "from rods_jax.dialogue import play", True),
        ("rods_jax.adapters.verifiers_env", "from rods_jax.commands.common import running", False),
        ("rods_jax.commands.convert", "from rods_jax.adapters import trajectories", True),
        ("rods_jax.commands.train", "from rods_jax.run import train", True),
        ("rods_jax.commands.look", "from rods_jax.look.page import page", True),
        ("rods_jax.look.pieces", "from rods_jax.run import train", False),
        ("rods_jax.look.pieces", "from rods_jax.journal import read_log", True),
        ("models.decoder", "def f():\n    import scripts.train", False),
        ("scripts.train", "from models.decoder import Decoder; from rods_jax.loop import train", True),
    ],
)
def test_the_arrow_test_can_tell_right_from_wrong(importer, statement, verdict):
    names = list(imports(ast.parse(statement), importer, is_package=False))
    assert names and all(allowed(importer, name) for name in names) == verdict


# -------------------------------------------------------------------------- calls that never happen
FORBIDDEN = {
    "eval", "exec", "builtins.eval", "builtins.exec", "os.system", "os.popen",
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "shutil.unpack_archive", "tarfile.open",
    "zipfile.ZipFile",
}  # fmt: skip


def forbidden_calls(tree: ast.AST) -> Iterator[str]:
    """Calls that run text as code, or unpack archives, through any import alias; `model.eval()` is none."""
    aliases = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        first, dot, rest = ast.unparse(node.func).partition(".")
        name = aliases.get(first, first) + dot + rest
        if name in FORBIDDEN:
            yield name
        for keyword in node.keywords:
            if keyword.arg in ("shell", "allow_pickle") and ast.unparse(keyword.value) != "False":
                yield f"{name}({keyword.arg}=...)"


def test_product_code_never_runs_text_as_code():
    found = [
        f"{module_name(path)}: {call}"
        for path in product_files()
        for call in forbidden_calls(ast.parse(path.read_text("utf-8")))
    ]
    assert not found


@pytest.mark.parametrize(
    "code, count",
    [
        ("eval('1')", 1),
        ("import pickle as p\np.loads(b'')", 1),
        ("from os import system\nsystem('ls')", 1),
        ("import subprocess\nsubprocess.run('ls', shell=True)", 1),
        ("import numpy as np\nnp.load('x', allow_pickle=True)", 1),
        ("model.eval()\nregex.exec('a')\nsubprocess.run(['ls'], shell=False)", 0),
    ],
)
def test_the_call_test_can_tell_right_from_wrong(code, count):
    assert len(list(forbidden_calls(ast.parse(code)))) == count


# --------------------------------------------------------------------------------------- the wheel
def test_the_wheel_holds_the_library_and_nothing_else(tmp_path):
    wheel = build_wheel(tmp_path)
    assert wheel.name.startswith(f"rods_jax-{rods_jax.__version__}-")
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    (metadata,) = (name for name in top if name.endswith(".dist-info"))
    assert top == {"rods_jax", "rods_jax_models", metadata}
    assert {name for name in names if name.endswith(".py")} == {
        path.relative_to(ROOT).as_posix().replace("models/", "rods_jax_models/", room == "models")
        for room in ("rods_jax", "models")
        for path in (ROOT / room).rglob("*.py")
    }
    for folder in ("rods_jax/synthesis/prompts", "rods_jax/look/page"):
        data = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).iterdir()}
        assert data and data <= set(names)
