"""Moved: run `python -m benchmarks`."""

import sys

from experiments.command import moved

if __name__ == "__main__":
    sys.exit(moved("experiments.benchmark", "benchmarks"))
