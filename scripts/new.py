"""Writes the folder of a new environment: `python -m scripts.new --help`, or `rods new --help`."""

from rods_jax.commands.new import main

if __name__ == "__main__":
    main()
