# SPDX-License-Identifier: GPL-2.0
"""Which phases are left to 'make check-all'."""

import unittest

import check


class RestTest(unittest.TestCase):
    def test_what_is_left_out_is_a_phase(self):
        self.assertLessEqual(check.REST, set(check.PHASES))

    def test_each_kernel_boots_at_every_change(self):
        for config in ("plain", "debug"):
            self.assertTrue(any(name.startswith(f"boot({config}, ") and "CPUs" in name
                                for name in set(check.PHASES) - check.REST))


if __name__ == "__main__":
    unittest.main()
