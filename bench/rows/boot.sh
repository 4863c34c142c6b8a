# SPDX-License-Identifier: MIT
# row: boot      | s | ratio <= | 1.0 | 0.8 | start of the monitor to the guest's init
# row: boot-lean | s | ratio <= | 1.0 | 0.8 | the same with cryptomgr.notests
#
# The first line of the guest's init on the console, after the start of the monitor: what a person
# waits for. bzImage, 512 MiB, 1 processor, a disk attached. The median of the rounds, in turns.
# Half of that time the guest's kernel tests its own crypto code, which is the same anywhere: in the
# lean row it is told not to.

# boots LABEL WORDS
boots() {
	for round in $(seq $rounds); do
		for name in partita q35 microvm; do
			watched $name "$1-$name-$round" "$2"
		done
	done
}

# boot_median LABEL NAME
boot_median() {
	for round in $(seq $rounds); do
		sed -n 's/^mark \([0-9.]*\) .*partita-guest: init .*/\1/p' "$work/$1-$2-$round"
	done | sort -n | sed -n "$((rounds / 2 + 1))p"
}

boots boot ''
boots boot-lean cryptomgr.notests
for label in boot boot-lean; do
	set -- $(best lower q35 "$(boot_median $label q35)" microvm "$(boot_median $label microvm)")
	result $label "$(boot_median $label partita)" "$1" "$2" $label-partita-1 "$label-$1-1" init
done
