"""A page of a run, or of several beside each other: what it shows (pieces.py, ancestry.py), how (page.py), served (serving.py)."""
