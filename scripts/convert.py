"""Writes episodes for other packages: `python -m scripts.convert --help`, or `rods convert --help`."""

from rods_jax.commands.convert import main

if __name__ == "__main__":
    main()
