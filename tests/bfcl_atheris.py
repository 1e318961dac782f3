"""The episodes of bfcl_fuzz.py, chosen by coverage of codecs, executor and tool classes. Needs `pip install atheris`.

python tests/bfcl_atheris.py -runs=100000 -max_len=4096 -len_control=0
"""

import io
import random
import sys

import atheris

with atheris.instrument_imports(include=["rods_jax.codecs", "rods_jax.environments", "bfcl_eval"]):
    import bfcl_fuzz

    bfcl_fuzz.some_tasks()

report = bfcl_fuzz.Report()
play = bfcl_fuzz.player(bfcl_fuzz.bfcl.bfcl_domain(), report, bfcl_fuzz.Guard())


class FromBytes(random.Random):
    """Takes its numbers from the fuzzer's bytes; zeros when they are used up."""

    def __init__(self, data: bytes):
        super().__init__(0)
        self._stream = io.BytesIO(data)

    def getrandbits(self, k: int) -> int:
        return int.from_bytes(self._stream.read((k + 7) // 8)) & ((1 << k) - 1)

    def random(self) -> float:
        return self.getrandbits(16) / 65536


def one_input(data: bytes) -> None:
    play(FromBytes(data))
    assert not report.violations, report.violations


atheris.Setup(sys.argv, one_input)
atheris.Fuzz()
