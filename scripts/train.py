"""Trains a policy with RODS: `python -m scripts.train --help`, or `rods train --help`."""

from rods_jax.commands.train import main

if __name__ == "__main__":
    main()
