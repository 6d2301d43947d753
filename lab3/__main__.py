"""`python -m lab3` is `lab3`."""

from lab3.cli import main

main(prog_name="lab3")
