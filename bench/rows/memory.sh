# SPDX-License-Identifier: MIT
# row: memory     | MiB | ours <= | 8 | 5 | the monitor's memory beyond the guest's own
# row: memory-cli | MiB | -       | - | - | partita itself, in front of it
#
# PSS of the process less the mappings that are guest memory, after all the loads of disk.sh have
# been through it. `partita run` is a process of its own that daemons do not need: it comes apart.

for name in partita q35 microvm; do
	session $name
done

# memory NAME PROGRAM
memory() {
	awk -v program="$2" '$1 == program { printf "%.2f\n", $2 / 1024 }' "$work/memory-$1"
}

set -- $(best lower q35 "$(memory q35 qemu-system-x86_64)" \
	microvm "$(memory microvm qemu-system-x86_64)")
result memory "$(memory partita partita-worker)" "$1" "$2"
result memory-cli "$(memory partita partita)" none 0
