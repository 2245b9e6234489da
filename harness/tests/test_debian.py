# SPDX-License-Identifier: GPL-2.0
"""Debian's configuration: when is it no longer what it was?"""

import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import debian       # noqa: E402


class Changed(unittest.TestCase):
    def test_a_symbol_that_is_gone_is_named(self):
        self.assertEqual(debian.changed({"HMM_MIRROR": "y"}, {}),
                         ["CONFIG_HMM_MIRROR: y with stock, gone with ours"])

    def test_a_module_that_is_built_in_is_named(self):
        self.assertEqual(debian.changed({"DRM_XE": "m"}, {"DRM_XE": "y"}),
                         ["CONFIG_DRM_XE: m with stock, y with ours"])

    def test_what_is_off_may_be_hidden_and_what_is_new_may_come(self):
        self.assertEqual(debian.changed({"TEST_HMM": "n"}, {"HMM_DMA": "y"}), [])


if __name__ == "__main__":
    unittest.main()
