"""Every transform and backend of the tuner keeps the contract. A new plugin is found, not listed."""

from tuner.catalog import members
from tuner.plugin import Backend, Transform
from tuner.testing.contract import *  # noqa: F403

PLUGINS = [*members(Transform), *members(Backend)]


def test_the_catalog_has_them() -> None:
    assert len(members(Transform)) >= 3
    assert len(members(Backend)) >= 4
