"""Times that both ends of a message share. Imports nothing, so that a ClientApp loads no torch."""

from __future__ import annotations

CLOSE_WITHIN_S = 10.0
"""How long the reply to a request to close is held back while the peer saves itself, in seconds."""

TELL_WITHIN_S = 10.0
"""How long a site may look at its checkpoints before it says that it is not done, in seconds."""
