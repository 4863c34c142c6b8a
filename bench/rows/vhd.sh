# SPDX-License-Identifier: MIT
# where: host
# row: vhd-alloc-2m         | op/s | ratio >= | 10   | - | 4 KiB writes, 32 at once, each into a new block of 2 MiB of a VHDX
# row: vhd-alloc-16m        | op/s | ratio >= | 10   | - | the same, blocks of 16 MiB
# row: vhd-alloc-32m        | op/s | ratio >= | 10   | - | the same, blocks of 32 MiB
# row: vhd-alloc-2m-qcow2   | op/s | ratio >= | 1    | - | the first against QEMU's qcow2
# row: vhd-read-4k-qd32     | op/s | ratio >= | 0.97 | - | 4 KiB random reads of a VHDX; the peer is ours on raw
# row: vhd-write-4k-qd32    | op/s | ratio >= | 0.97 | - | 4 KiB random writes where blocks are; likewise
# row: vhd-convert-to       | s    | ratio <= | 0.8  | - | raw to VHDX, 4 GiB, half zeros, not flushed
# row: vhd-convert-from     | s    | ratio <= | 0.8  | - | VHDX to raw, not flushed
# row: vhd-convert-to-safe  | s    | ratio <= | 0.8  | - | raw to VHDX, durable at the end
# row: vhd-convert-from-safe | s   | ratio <= | 0.8  | - | VHDX to raw, durable at the end
# row: vhd-convert-from-cpu | s    | ratio <= | 0.5  | - | VHDX to raw, user CPU
# row: vhd-create-64t       | ms   | ours <=  | 10   | - | making a disk of 64 TiB with blocks of 1 MiB
# row: vhd-open-64t         | ms   | ours <=  | 10   | - | opening it, and saying what it is
# row: vhd-open-64t-memory  | KiB  | ours <=  | 8192 | - | resident memory of that
# row: vhd-open-64t-file    | KiB  | ours <=  | 4096 | - | what its file takes
#
# Outside the lab, on the file system of $work, past the page cache where the peer can; the disk is
# the machine's own, so both sides take turns, five times, and the middle ones are compared.

turns=5

# timed NAME COMMAND...: adds seconds, user seconds and KiB of memory to $work/NAME.
timed() {
	name=$1
	shift
	/usr/bin/time -a -o "$work/$name" -f '%e %U %M' "$@" >/dev/null
}

# column NAME N: the middle of a column.
column() {
	awk -v n="$2" '{ print $n }' "$work/$1" | median
}

qemu_rate() {
	name=$1 count=$2
	shift 2
	qemu-img bench -q -t none -i io_uring -d 32 -s 4096 -c "$count" "$@" | sed -n \
		"s/^Run completed in \([0-9.]*\) .*/\1/p" |
		awk -v n="$count" '$1 > 0 { print n / $1 }' >>"$work/$name"
}

our_rate() {
	name=$1 count=$2
	shift 2
	"$vhd_bench" -n -d 32 -s 4096 -c "$count" "$@" | cut -d ' ' -f 2 >>"$work/$name"
}

# allocate STEP: into images of 256 GiB with blocks of that many MiB.
allocate() {
	for turn in $(seq $turns); do
		rm -f "$work"/a.*
		"$vhd" create "$work/a.vhdx" --size 256G --block-size "$1M"
		our_rate "ours-$1" 4000 -w -S $(($1 << 20)) "$work/a.vhdx"
		qemu-img create -q -f vhdx -o block_size=$(($1 << 20)) "$work/a.theirs" 256G
		qemu_rate "vhdx-$1" 1000 -w -f vhdx -S $(($1 << 20)) "$work/a.theirs"
		qemu-img create -q -f qcow2 "$work/a.qcow2" 256G
		qemu_rate "qcow2-$1" 1000 -w -f qcow2 -S $(($1 << 20)) "$work/a.qcow2"
	done
	rm -f "$work"/a.*
	result "vhd-alloc-$1m" "$(column "ours-$1" 1)" qemu-vhdx "$(column "vhdx-$1" 1)"
}

# present OPTION...: random 4 KiB on images of 1 GiB that are all there.
present() {
	for turn in $(seq $turns); do
		for format in raw vhdx; do
			our_rate "$1-$format" 50000 -r "$2" -f $format "$work/full.$format"
		done
	done
	result "vhd-$1-4k-qd32" "$(column "$1-vhdx" 1)" ours-on-raw "$(column "$1-raw" 1)"
}

# pair NAME FROM TO QEMU-FORMAT OUR-OPTION QEMU-CACHE
pair() {
	for turn in $(seq $turns); do
		rm -f "$work/$3"
		sync
		timed "ours-$1" "$vhd" convert "$work/$2" "$work/$3" $5
		rm -f "$work/theirs"
		sync
		timed "qemu-$1" qemu-img convert -t "$6" -O "$4" "$work/$2" "$work/theirs"
	done
	rm -f "$work/theirs"
	result "vhd-$1" "$(column "ours-$1" 1)" qemu-img "$(column "qemu-$1" 1)"
}

# Times are beyond those of a program that does nothing; our own's start counts.
largest() {
	for turn in $(seq $turns); do
		rm -f "$work/largest.vhdx"
		begun=$(date +%s%N)
		timed largest-nothing true
		nothing=$(($(date +%s%N) - begun))
		for verb in create info; do
			arguments=
			[ $verb = info ] || arguments='--size 64T --block-size 1M'
			begun=$(date +%s%N)
			timed "largest-$verb" "$vhd" $verb "$work/largest.vhdx" $arguments
			echo $((($(date +%s%N) - begun - nothing) / 1000)) >>"$work/us-$verb"
		done
	done
	for verb in create info; do
		awk '{ print $1 / 1000 }' "$work/us-$verb" >"$work/ms-$verb"
	done
	result vhd-create-64t "$(column ms-create 1)" - -
	result vhd-open-64t "$(column ms-info 1)" - -
	result vhd-open-64t-memory "$(column largest-info 3)" - -
	result vhd-open-64t-file "$(du -k "$work/largest.vhdx" | cut -f 1)" - -
}

for step in 2 16 32; do
	allocate $step
done
result vhd-alloc-2m-qcow2 "$(column ours-2 1)" qemu-qcow2 "$(column qcow2-2 1)"

head -c 1G /dev/urandom >"$work/full.raw"
"$vhd" convert "$work/full.raw" "$work/full.vhdx"
present read -r
present write -w
rm -f "$work"/full.*

for i in $(seq 64); do
	head -c 32M /dev/urandom
	head -c 32M /dev/zero
done >"$work/half.raw"
pair convert-to half.raw half.vhdx vhdx --no-flush unsafe
pair convert-from half.vhdx half-back.raw raw --no-flush unsafe
pair convert-to-safe half.raw half.vhdx vhdx '' writeback
pair convert-from-safe half.vhdx half-back.raw raw '' writeback
result vhd-convert-from-cpu "$(column ours-convert-from 2)" qemu-img "$(column qemu-convert-from 2)"
rm -f "$work"/half*
largest
