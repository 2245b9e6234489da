#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The dummy device as a module comes and goes: not while a file of it is open, and
# without a trace once none is. Between, it works: another test of this directory says
# so.

here=$(dirname "$0")
# shellcheck disable=SC1091 # installed beside this directory
. "$here/../kselftest/ktap_helpers.sh"

MODULE=test_hmm
FILE=${TEST_HMM_KO:-/lib/modules/$MODULE.ko}
ROUNDS=5

# What the kernel's command line has for the module.
parameters()
{
	tr ' ' '\n' < /proc/cmdline | sed -n "s/^$MODULE\.//p"
}

# Memory that the devices have, as /proc/iomem knows it.
memory()
{
	grep -c hmm_dmirror /proc/iomem
}

load()
{
	# shellcheck disable=SC2046 # one word each
	insmod "$FILE" $(parameters)
}

try()
{
	what=$1
	shift
	if "$@"; then
		ktap_test_pass "$what"
	else
		ktap_test_fail "$what"
	fi
}

not_while_open()
{
	exec 3<> /dev/hmm_dmirror0 || return 1
	rmmod $MODULE 2> /dev/null
	status=$?
	exec 3>&-
	[ $status -ne 0 ] && [ -c /dev/hmm_dmirror0 ]
}

device_works()
{
	"$here/hmm_exclusive" > /dev/null
}

leaves_nothing()
{
	rmmod $MODULE || return 1
	left=$(memory)
	[ ! -e /sys/module/$MODULE ] && [ ! -e /dev/hmm_dmirror0 ] && [ "$left" = 0 ]
	status=$?
	load && [ -c /dev/hmm_dmirror0 ] && [ $status -eq 0 ]
}

again_and_again()
{
	for round in $(seq $ROUNDS); do
		if ! leaves_nothing || ! device_works; then
			ktap_print_msg "round $round"
			return 1
		fi
	done
}

ktap_print_header
if [ ! -e /sys/module/$MODULE/refcnt ] || [ ! -r "$FILE" ]; then
	ktap_skip_all "$MODULE is not a module, or $FILE is not there (TEST_HMM_KO)"
	exit "$KSFT_SKIP"
fi
ktap_set_plan 4
try not_while_open not_while_open
try works device_works
try leaves_nothing leaves_nothing
try again_and_again again_and_again
ktap_finished
