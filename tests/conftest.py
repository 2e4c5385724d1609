"""What holds for every test: on the CPU unless told otherwise, and no flags left to parse."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("KERAS_BACKEND", "jax")

from absl import flags
from hypothesis import settings

flags.FLAGS.mark_as_parsed()  # Grain reads flags and refuses to before they are parsed

# The first example of a shape compiles, which no deadline foresees.
settings.register_profile("default", deadline=None, print_blob=True)
settings.load_profile("default")
