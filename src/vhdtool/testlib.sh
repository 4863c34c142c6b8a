# SPDX-License-Identifier: MIT
#
# What the shell tests of `vhd` share. A test sources this, with the program in $vhd, and works in a
# folder of its own; `out` and `err` there are what the program said last.

fail() {
	echo "failed: $*"
	head -c 2000 out err 2>/dev/null
	exit 1
}

# want STATUS WORDS COMMAND...: the status, and words (a pattern) in what is printed.
want() {
	status=$1 words=$2 got=0
	shift 2
	"$vhd" "$@" >out 2>err || got=$?
	[ "$got" = "$status" ] || fail "vhd $*: status $got, not $status"
	[ -z "$words" ] || cat out err | grep -a -q -e "$words" || fail "vhd $*: does not say \"$words\""
}

# poke FILE OFFSET BYTES: as printf has them.
poke() {
	printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
