"""Writes variants for a run beside its trainer: `python -m scripts.synthesize --help`, or `rods synthesize --help`."""

from rods_jax.commands.synthesize import main

if __name__ == "__main__":
    main()
