"""What is wrong with a configuration, as one line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dogo_fed.errors import ConfigError


def the_error(act: Callable[[], object]) -> str:
    """Returns the message of the one ConfigError that `act` must raise; one line, nothing else."""
    with pytest.raises(ConfigError) as caught:
        act()
    assert type(caught.value) is ConfigError
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message
