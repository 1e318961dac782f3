"""Authors who write whole tasks, each with a checker, and rewrite their own instructions (AReaL-SEA, arXiv 2601.22607).

plan -> write -> gate -> verify -> trial -> judge, in rounds; between rounds each pair of plans is reflected on (evolve.py).
"""
