"""A page of runs, for a browser: `python -m scripts.look --help`, or `rods look --help`."""

from rods_jax.commands.look import main

if __name__ == "__main__":
    main()
