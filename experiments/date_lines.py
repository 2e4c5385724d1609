r"""Lines of one to four dates: what attention buys as lengths grow. Test has lines of five as well.

    ./launch.sh --config=experiments/date_lines.py     # one run
    python -m experiments.lengths                      # with and without attention, three seeds

Forms and days are `dates.py`'s. Without attention each step reads the encoder's last states, as in Cho et al.
2014; both networks train for 2,000 steps of 64 lines. Test, seeds 0 to 2, greedy decoding, mean and range:

    dates   with attention: exact    BLEU    without: exact           BLEU
        1   1.000 (1.000 to 1.000)  100.0    0.760 (0.727 to 0.779)   91.5
        2   0.995 (0.994 to 0.995)   99.9    0.097 (0.085 to 0.105)   80.8
        3   0.987 (0.986 to 0.990)   99.9    0.000 (0.000 to 0.000)   67.6
        4   0.983 (0.974 to 0.995)   99.9    0.000 (0.000 to 0.000)   56.1
        5   0.017 (0.000 to 0.026)   75.4    0.000 (0.000 to 0.000)   49.9

Attention carries the network to the longest lines trained on and not beyond: most lines of five dates come out
as four. Without attention the loss still falls at the end. Two cores of an AMD EPYC (Zen 3) shared with other
work, 2026-11-26: 9 to 16 min a run with attention (9 to 12 min of processor time),
7 to 11 min without (4 to 7 min).
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
