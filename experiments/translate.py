"""Translates with a finished run of `experiments.seq2seq`.

    python -m experiments.translate --workdir=runs/dates [--beams=5] [--picture=FILE] ["7 de marzo de 2004" ...]

TEXT        The texts to translate. None: the lines of stdin.
--workdir   The run's folder.
--beams     Beams of the search; 1 is greedy decoding. Default: 5.
--picture   A PNG of the attention for the first text: a row for each token written, a column for each one read.

Prints a translation, a tab and its log-probability on each line.

Exit codes: 0 done, 2 wrong flags or input.
"""

import sys
from collections.abc import Sequence

from bahdanau_jax.errors import InputError
from experiments.command import REQUIRED, command, parse_flags


@command
def main(argv: Sequence[str]) -> None:
    """Runs the command line."""
    asked, texts = parse_flags(argv, positional=True, workdir=REQUIRED, beams=5, picture=None)
    from bahdanau_jax.report.alignment import draw_alignment
    from bahdanau_jax.training.translator import Translator

    translator = Translator.load(asked.workdir)
    texts = texts or [line.rstrip("\r\n") for line in sys.stdin]
    for i, text in enumerate(texts, start=1):
        if not text:
            raise InputError(f"text {i} is empty; expected something to translate")
    translations = translator.translate(texts, beams=asked.beams)
    for translation in translations:
        print(f"{translation.text}\t{translation.score:.4f}")
    if asked.picture:
        draw_alignment(asked.picture, *translator.align(texts[0], translations[0].text))


if __name__ == "__main__":
    sys.exit(main())
