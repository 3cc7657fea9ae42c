"""`python -m configs KEY=VALUE ...`: writes what settings compose to, for a process without Hydra."""

from __future__ import annotations

import json
import sys

from configs.compose import compose_run
from configs.shorthand import in_full
from dogo_fed.config_text import to_mapping
from dogo_fed.errors import ConfigError
from dogo_fed.exit_status import tell
from dogo_fed.reporting.log_file import warnings_to_stderr


def main() -> int:
    """Writes the configuration as JSON to standard output; returns the exit status."""
    warnings_to_stderr()
    try:
        config = compose_run(in_full(sys.argv[1:]))
    except ConfigError as error:
        return tell(error)
    sys.stdout.write(json.dumps(to_mapping(config)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
