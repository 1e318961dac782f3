"""Writes the policy of a run as a checkpoint: `python -m scripts.export --help`, or `rods export --help`."""

from rods_jax.commands.export import main

if __name__ == "__main__":
    main()
