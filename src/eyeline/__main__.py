"""`python -m eyeline`: the same door as the command `eyeline`."""

from eyeline.cli import main

main()
