"""Moved: run `python -m benchmarks.scaling`."""

import sys

from experiments.command import moved

if __name__ == "__main__":
    sys.exit(moved("experiments.scaling", "benchmarks.scaling"))
