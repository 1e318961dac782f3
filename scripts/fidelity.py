"""How good the synthesised tasks of a run are: `python -m scripts.fidelity --help`, or `rods fidelity --help`."""

from rods_jax.commands.fidelity import main

if __name__ == "__main__":
    main()
