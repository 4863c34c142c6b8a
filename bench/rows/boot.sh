# SPDX-License-Identifier: MIT
# row: boot | s | ratio <= | 1.0 | 0.8 | start of the monitor to the guest's init
#
# The first line of the guest's init on the console, after the start of the monitor: what a person
# waits for. Bzimage, 512 MiB, 1 processor, a disk attached. The median of the rounds, in turns.

for round in $(seq $rounds); do
	for name in partita q35 microvm; do
		watched $name "boot-$name-$round" ''
	done
done

boot_median() {
	for round in $(seq $rounds); do
		sed -n 's/^mark \([0-9.]*\) .*partita-guest: init .*/\1/p' "$work/boot-$1-$round"
	done | sort -n | sed -n "$((rounds / 2 + 1))p"
}

set -- $(best lower q35 "$(boot_median q35)" microvm "$(boot_median microvm)")
result boot "$(boot_median partita)" "$1" "$2" boot-partita-1 "boot-$1-1" init
