"""The contract of backends whose libraries fit nobody else's. pytest is given this file in the environment that one of
them has (`test_own_environments.py`); OWN names the backend."""

import os

from tuner.catalog import members
from tuner.plugin import Backend
from tuner.system.launcher import install_name
from tuner.testing.contract import *  # noqa: F403

PLUGINS = [kind for kind in members(Backend) if install_name(kind) == os.environ["OWN"]]
