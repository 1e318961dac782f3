"""The help desk's agent as its demonstrations make it, without reinforcement learning: where runs with other users begin.

    python -m scripts.train --config configs/helpdesk_agent.py

Hardware: 2 CPU cores, 2 GiB; 3 to 5 minutes.
"""

from dataclasses import replace

from configs.helpdesk import CONFIG as HELPDESK

CONFIG = replace(HELPDESK, name="helpdesk_agent", run_dir="runs/helpdesk_agent", stages=())
