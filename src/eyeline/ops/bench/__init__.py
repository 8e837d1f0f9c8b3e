"""`eyeline bench`: the limit of this machine, Eyeline end to end, and the naive service, in one run (see run.py)."""
