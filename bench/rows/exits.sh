# SPDX-License-Identifier: MIT
# row: exits-read-4k-qd1   | per op | - | - | - | exits for a 4 KiB read, one at a time
# row: exits-read-4k-qd32  | per op | - | - | - | exits for a 4 KiB read, 32 at a time
# row: exits-write-4k-qd32 | per op | - | - | - | exits for a 4 KiB write, 32 at a time
# row: exits-read-1m       | per op | - | - | - | exits for a read of 1 MiB
# row: exits-idle          | per s  | - | - | - | exits of an idle guest
#
# All exits from the guest, those that KVM handles by itself too, by KVM's own counters. Reported
# without a bound.

for name in partita q35 microvm; do
	session $name
done
for load in read-4k-qd1 read-4k-qd32 write-4k-qd32 read-1m idle; do
	set -- $(best lower q35 "$(count q35 $load 3)" microvm "$(count microvm $load 3)")
	result exits-$load "$(count partita $load 3)" "$1" "$2"
done
