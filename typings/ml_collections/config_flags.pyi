from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

def DEFINE_config_dict(
    name: str,
    config: ConfigDict,
    help_string: str = ...,
    flag_values: flags.FlagValues = ...,
    *,
    sys_argv: Sequence[str] | None = None,
) -> flags.FlagHolder[Any]: ...
