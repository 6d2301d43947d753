"""`python -m lab3` is `lab3`."""

from lab3.app.cli import run_program

run_program("lab3")
