# SPDX-License-Identifier: MIT
# where: host
# row: vhd-mount-read-4k-qd32  | op/s | ratio >= | 2 | - | 4 KiB random reads, 32 at once, of the device that `vhd mount` makes of a VHDX
# row: vhd-mount-write-4k-qd32 | op/s | ratio >= | 2 | - | 4 KiB random writes; likewise
#
# The peer is QEMU's FUSE export of the same image under a loop device, in the page cache or past it
# below, whichever is faster. Above, all go past the page cache. Needs root, FUSE and loop devices.

turns=5
seconds=4
theirs=

# load DEVICE RW: operations per second.
load() {
	fio --name=mount --filename="$1" --rw="$2" --bs=4k --iodepth=32 --ioengine=io_uring --direct=1 \
		--time_based --runtime=$seconds --randrepeat=0 --output-format=terse \
		--terse-version=3 |
		awk -F ';' -v column="$([ "$2" = randread ] && echo 8 || echo 49)" '{ print $column }'
}

# export_start DIRECT AIO: $theirs is its device.
export_start() {
	: >"$work/export"
	qemu-storage-daemon --daemonize --pidfile "$work/export.pid" --blockdev \
		"file,node-name=file,filename=$work/mount.vhdx,cache.direct=$1,aio=$2" \
		--blockdev vhdx,node-name=disk,file=file \
		--export "fuse,id=fuse,node-name=disk,mountpoint=$work/export,writable=on"
	theirs=$(losetup --find --show --direct-io=on "$work/export")
}

export_end() {
	losetup --detach "$theirs"
	theirs=
	pid=$(cat "$work/export.pid")
	kill "$pid"
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.1
	done
}

clean_up() {
	"$vhd" unmount "$work/mount.vhdx" >/dev/null 2>&1 || :
	[ -z "$theirs" ] || export_end
	rm -rf "$work"
}
trap clean_up EXIT

head -c 1G /dev/urandom >"$work/full.raw"
"$vhd" convert "$work/full.raw" "$work/mount.vhdx"
rm "$work/full.raw"
for turn in $(seq $turns); do
	for rw in randread randwrite; do
		load "$("$vhd" mount "$work/mount.vhdx" --device --writable)" $rw >>"$work/ours-$rw"
		"$vhd" unmount "$work/mount.vhdx" >/dev/null
		export_start off threads
		load "$theirs" $rw >>"$work/cached-$rw"
		export_end
		export_start on io_uring
		load "$theirs" $rw >>"$work/direct-$rw"
		export_end
	done
done
for rw in read write; do
	cached=$(median <"$work/cached-rand$rw")
	direct=$(median <"$work/direct-rand$rw")
	result "vhd-mount-$rw-4k-qd32" "$(median <"$work/ours-rand$rw")" qemu-fuse \
		"$(printf '%s\n' "$cached" "$direct" | sort -n | tail -n 1)"
done
