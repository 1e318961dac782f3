"""Evaluates any policy on any split: `python -m scripts.evaluate --help`, or `rods evaluate --help`."""

from rods_jax.commands.evaluate import main

if __name__ == "__main__":
    main()
