"""The same with the untuned user, to compare: see configs/helpdesk_tuned_user.py."""

from configs.helpdesk_tuned_user import with_user
from configs.helpdesk_user import CONFIG as UNTUNED

CONFIG = with_user("helpdesk_untuned_user", UNTUNED)
