"""The help desk with a model as its user: the policy of a run, here the tuned one of configs/helpdesk_user_tuned.py.

    python -m scripts.train --config configs/helpdesk_agent.py           (then the users': configs/helpdesk_user_tuned.py says how)
    python -m scripts.train --config configs/helpdesk_tuned_user.py
    python -m scripts.train --config configs/helpdesk_untuned_user.py

Hardware: 2 CPU cores, 2 GiB.  The agent begins where configs/helpdesk_agent.py ends.  The user's tokens carry no loss.
"""

from functools import partial

from configs.helpdesk_agent import continued
from configs.helpdesk_user_tuned import CONFIG as TUNED
from rods_jax.config import Config
from rods_jax.environments.helpdesk.domain import helpdesk
from rods_jax.run import users


def with_user(name: str, user: Config) -> Config:
    """The help desk, where the policy of `user`'s run speaks for the customer."""
    return continued(name, domain=partial(users.with_user, helpdesk, user.run_dir))


CONFIG = with_user("helpdesk_tuned_user", TUNED)
