"""For those who write plugins: the suite that every plugin passes, and stand-ins to try the engine with.

`contract`: tests of transforms and backends, to be imported into a test file of one's own (docs/test-a-plugin.md);
`networks`: the small networks and samples that it uses. `fakes`: a model, samples and plugins that need no library but
NumPy and take no time; `faults`: the same, with every way in which a plugin can go wrong. `null`: the least there can
be, for timing the engine itself.

The suite needs `pip install 'inference-tuner[test]'`; the rest does not.
"""

import sys

if "pytest" in sys.modules:
    sys.modules["pytest"].register_assert_rewrite("tuner.testing.contract")  # so that a failure shows its values
