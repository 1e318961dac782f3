"""What processes do to a journal, to be killed while they do it."""

import time
from pathlib import Path

from rods_jax.journal import Place, read, writing


def write_for_ever(path: str, name: int) -> None:
    place = Place()
    for number in range(10**9):
        _, place = read(Path(path), place)
        with writing(Path(path), place) as append:
            append({"writer": name, "number": number})


def hold(path: str) -> None:
    with writing(Path(path)) as append:
        append("mine")
        time.sleep(600)
