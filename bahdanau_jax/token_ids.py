"""The ids below the words', by the notebook's rule (`keras.datasets.imdb`), without 3: words start at 4."""

PAD, START, UNKNOWN, FIRST_WORD = 0, 1, 2, 4
END = 3  # of a target that a decoder writes
