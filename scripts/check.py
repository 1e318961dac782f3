"""Says what a start would refuse, without starting: `python -m scripts.check --help`, or `rods check --help`."""

from rods_jax.commands.check import main

if __name__ == "__main__":
    main()
