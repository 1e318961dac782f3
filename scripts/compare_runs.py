"""Says where two runs first differ: `python -m scripts.compare_runs --help`, or `rods compare_runs --help`."""

from rods_jax.commands.compare_runs import main

if __name__ == "__main__":
    main()
