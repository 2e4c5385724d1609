"""Moved: run `python -m tests.torture`."""

import sys

from experiments.command import moved

if __name__ == "__main__":
    sys.exit(moved("experiments.torture", "tests.torture"))
