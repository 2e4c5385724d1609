r"""Lines of one to four dates: what attention buys as lengths grow. Test has lines of five as well.

./launch.sh --config=experiments/date_lines.py              # one run
python -m experiments.lengths --out=runs/lengths            # with and without attention, three seeds
"""

from ml_collections import ConfigDict

from experiments import dates


def get_config() -> ConfigDict:
    """`dates.py`'s config on longer lines."""
    config = dates.get_config()
    config.data.longest = 4
    config.data.test_longest = 5
    config.data.test_size = 1_000
    config.batch_size = 64
    config.steps = 2_000
    return config
