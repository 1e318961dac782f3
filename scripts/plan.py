"""Whether a run fits a machine, and what it would cost: `python -m scripts.plan --help`, or `rods plan --help`."""

from models.planning.plan import main

if __name__ == "__main__":
    main()
