"""Plots and a summary of a run: `python -m scripts.report --help`, or `rods report --help`."""

from rods_jax.commands.report import main

if __name__ == "__main__":
    main()
