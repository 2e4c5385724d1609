"""The ids below the words', by the notebook's rule (`keras.datasets.imdb`): 3 is unused, words start at 4."""

PAD, START, UNKNOWN, FIRST_WORD = 0, 1, 2, 4
