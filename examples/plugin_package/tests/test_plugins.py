"""The tuner's own suite over the plugins of this package: they are found by their entry point."""

from tuner.testing.contract import *  # noqa: F403
