"""A site's socket for the tests of this folder."""

from tests.support.echoing_site import address, folder

__all__ = ["address", "folder"]
