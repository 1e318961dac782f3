"""Has tasks written and judged in rounds: `python -m scripts.evolve --help`, or `rods evolve --help`."""

from rods_jax.commands.evolve import main

if __name__ == "__main__":
    main()
