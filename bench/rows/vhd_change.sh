# SPDX-License-Identifier: MIT
# where: host
# row: vhd-merge-write-4k-qd32 | op/s | ratio >= | 0.7 | - | 4 KiB random writes, 32 at once, while the image is merged into its parent; the peer is the same without
# row: vhd-track-write-4k-qd32 | op/s | ratio >= | 0.9 | - | 4 KiB random writes whose changes are tracked; the peer is the same without
# row: vhd-compact-16g         | s    | ratio <= | 1.2 | - | compacting 16 GiB with every second block freed; the peer is dd, which copies as much as moves
#
# Outside the lab, as vhd.sh.

turns=5

# writes NAME OPTION...: random writes.
writes() {
	name=$1
	shift
	"$vhd_bench" -n -w -r -d 32 -s 4096 "$@" | cut -d ' ' -f 2 >>"$work/$name"
}

# full IMAGE MIB: writes all of it.
full() {
	"$vhd_bench" -n -w -s 1048576 -d 8 -c "$2" "$1" >/dev/null
}

for turn in $(seq $turns); do
	"$vhd" create "$work/parent.vhdx" --size 256M --force
	full "$work/parent.vhdx" 256
	"$vhd" create "$work/child.vhdx" --parent "$work/parent.vhdx" --force
	full "$work/child.vhdx" 256
	writes without -c 50000 "$work/child.vhdx"
	writes merging -M "$work/parent.vhdx" "$work/child.vhdx"
	writes untracked -c 50000 "$work/parent.vhdx"
	writes tracked -T -c 50000 "$work/parent.vhdx"
	rm "$work/parent.vhdx.track"
done
rm "$work/child.vhdx" "$work/parent.vhdx"
result vhd-merge-write-4k-qd32 "$(median <"$work/merging")" ours-alone "$(median <"$work/without")"
result vhd-track-write-4k-qd32 "$(median <"$work/tracked")" ours-alone "$(median <"$work/untracked")"

# Of the 8 GiB that are left, the 4 GiB that lie in the second half move.
for turn in $(seq $turns); do
	"$vhd" create "$work/large.vhdx" --size 16G --force
	full "$work/large.vhdx" 16384
	"$vhd_bench" -n -t -s 33554432 -S 67108864 -d 8 -c 256 "$work/large.vhdx" >/dev/null
	rm -f "$work/copy"
	sync
	/usr/bin/time -a -o "$work/compact" -f %e "$vhd" compact "$work/large.vhdx" >/dev/null
	/usr/bin/time -a -o "$work/dd" -f %e dd if="$work/large.vhdx" of="$work/copy" bs=1M count=4096 \
		iflag=direct oflag=direct conv=fsync status=none
done
rm "$work/large.vhdx" "$work/copy"
result vhd-compact-16g "$(median <"$work/compact")" dd "$(median <"$work/dd")"
