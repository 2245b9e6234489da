# SPDX-License-Identifier: GPL-2.0
#
# Two verbs for the first minute, 'make demo' and 'make check'; 'make help' lists
# the rest. The work is done by harness/.

VERBS := tree config kernel demo check check-all check-debug bench test conformance programs \
	shell gdb um users arm64 builds coverage docs lint model mutants torture fuzz fixes \
	selfcheck series series-check

# Handed to the harness, as in any kernel build.
export ARCH CROSS_COMPILE KSRC TREE O V T CONFIG CPUS JOBS APPEND BUILD SEED SECONDS MACHINE FILE SINCE RESUME

help:
	@cat harness/help.txt

deps:
	@harness/deps.sh

deps-all:
	@harness/deps.sh all

check-all builds coverage arm64: deps-all

$(VERBS): deps
	@python3 -B harness/main.py $@

clean:
	rm -rf $(or $(BUILD),build)

.DEFAULT_GOAL := help
.PHONY: help deps deps-all clean $(VERBS)
