"""Points to `bahdanau_jax.data.imdb_download`, where this command went."""

import sys

if __name__ == "__main__":
    print("error: this command is now python -m bahdanau_jax.data.imdb_download", file=sys.stderr)
    sys.exit(2)
