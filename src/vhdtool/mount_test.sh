#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mount_test.sh VHD: images as devices, file systems and files; partitions; sectors of 4 KiB; a
# server or a keeper that is killed; the server's box; what others get while something waits; and that
# nothing is left behind.
set -eu

vhd=$(realpath "$1")
[ "$(id -u)" = 0 ] || { echo 'skipped: not root'; exit 77; }
[ -c /dev/fuse ] && [ -c /dev/loop-control ] || { echo 'skipped: no FUSE or loop devices'; exit 77; }
for tool in mkfs.ext4 losetup qemu-img sfdisk; do
	command -v $tool >/dev/null || { echo "skipped: no $tool"; exit 77; }
done

tmp=$(mktemp -d)
slow=
serving=
cleanup() {
	[ -z "$serving" ] || kill "$serving" 2>/dev/null || :
	[ -z "$slow" ] || kill -CONT "$slow" || :
	umount -l "$tmp/mnt" "$tmp/file" "$tmp/low" 2>/dev/null || :
	for image in "$tmp"/*.vhd "$tmp"/*.vhdx "$tmp"/*.raw; do
		"$vhd" unmount "$image" >/dev/null 2>&1 || :
	done
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 130' HUP INT TERM
cd "$tmp"
mkdir mnt file

# Of ours, not of whatever else goes on here.
nothing_left() {
	for try in $(seq 100); do
		if ! "$vhd" mount --list | grep -q "$tmp" && ! grep -q "$tmp" /proc/mounts; then
			return
		fi
		sleep 0.1
	done
	"$vhd" mount --list
	grep "$tmp" /proc/mounts
	exit 1
}

no_device() {
	for try in $(seq 100); do
		[ -e "/sys/block/$(basename "$1")/loop" ] || return 0
		sleep 0.1
	done
	echo "$1 is still attached"
	exit 1
}

make() { # FILE SIZE [OPTION...]
	file=$1 size=$2
	shift 2
	"$vhd" create "$file" --size "$size" "$@"
}

server_of() { # IMAGE of ours
	"$vhd" mount --list --json |
		sed -n "\\|$tmp/$1\"|,/pid/s/.*\"pid\": \([0-9]*\).*/\1/p" | head -n 1
}

server() {
	server_of a.vhdx
}

# round_trip FS MKFS...: make a file system, write, mount again, compare
round_trip() {
	fs=$1
	shift
	rm -f a.vhdx
	make a.vhdx 1G --block-size 2M
	device=$("$vhd" mount a.vhdx --device --writable)
	"$@" "$device" >/dev/null 2>&1
	"$vhd" unmount "$device"
	no_device "$device"
	"$vhd" mount a.vhdx mnt --writable
	dd if=/dev/urandom of=mnt/x bs=1M count=64 status=none
	sum=$(md5sum <mnt/x)
	"$vhd" unmount mnt
	nothing_left
	"$vhd" mount a.vhdx mnt
	[ "$(md5sum <mnt/x)" = "$sum" ]
	if touch mnt/y 2>/dev/null; then exit 1; fi
	umount mnt
	nothing_left
	"$vhd" check a.vhdx >/dev/null
	echo "ok $fs"
}

round_trip ext4 mkfs.ext4 -q
! command -v mkfs.xfs >/dev/null || round_trip xfs mkfs.xfs -q
if command -v ntfs-3g >/dev/null && command -v mkntfs >/dev/null; then
	round_trip ntfs mkntfs -Q -F
fi

# a child takes what is written, and its parent stays as it is
for format in vhd vhdx; do
	make "base.$format" 64M
	device=$("$vhd" mount "base.$format" --device --writable)
	mkfs.ext4 -q "$device"
	"$vhd" unmount "$device"
	"$vhd" mount "base.$format" mnt --writable
	echo old >mnt/old
	"$vhd" unmount mnt
	nothing_left
	sum=$(md5sum <"base.$format")
	"$vhd" create "child.$format" --parent "base.$format"
	"$vhd" mount "child.$format" mnt --writable
	[ "$(cat mnt/old)" = old ]
	echo new >mnt/new
	"$vhd" unmount mnt
	nothing_left
	[ "$(md5sum <"base.$format")" = "$sum" ]
	"$vhd" mount "child.$format" mnt
	[ "$(cat mnt/new)" = new ]
	"$vhd" unmount mnt
	nothing_left
	"$vhd" check "child.$format" >/dev/null
	echo "ok child, $format"
done

# partitions: the first is Microsoft's reserved one
make p.vhdx 512M
device=$("$vhd" mount p.vhdx --device --writable)
printf 'label: gpt\nsize=16M,type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE\nsize=100M\nsize=200M\n' |
	sfdisk -q --no-reread "$device" 2>/dev/null
"$vhd" unmount p.vhdx
for n in 2 3; do
	device=$("$vhd" mount p.vhdx --device --partition $n --writable)
	mkfs.ext4 -q "$device"
	"$vhd" unmount p.vhdx
	"$vhd" mount p.vhdx mnt --partition $n --writable
	echo $n >mnt/number
	"$vhd" unmount mnt
done
"$vhd" mount p.vhdx mnt
[ "$(cat mnt/number)" = 2 ]
"$vhd" unmount mnt
"$vhd" mount p.vhdx mnt --partition 3
[ "$(cat mnt/number)" = 3 ]
"$vhd" unmount mnt
if "$vhd" mount p.vhdx mnt --partition 4 2>/dev/null; then exit 1; fi
if "$vhd" mount p.vhdx mnt --partition 1 2>/dev/null; then exit 1; fi
nothing_left
echo 'ok gpt'

truncate -s 64M m.raw
printf 'label: dos\n1 : size=10M,type=ef\n2 : size=50M,type=5\n5 : size=20M,type=83\n' | sfdisk -q m.raw
device=$("$vhd" mount m.raw --device --partition 5)
[ "$(cat "/sys/block/$(basename "$device")/size")" = 40960 ]
"$vhd" unmount m.raw
nothing_left
echo 'ok mbr'

make k.vhdx 256M --sector-size 4096
device=$("$vhd" mount k.vhdx --device --writable)
[ "$(cat "/sys/block/$(basename "$device")/queue/logical_block_size")" = 4096 ]
[ "$(cat "/sys/block/$(basename "$device")/loop/dio")" = 1 ]
printf 'label: gpt\nsize=100M\n' | sfdisk -q --no-reread "$device" 2>/dev/null
"$vhd" unmount k.vhdx
device=$("$vhd" mount k.vhdx --device --partition 1 --writable)
mkfs.ext4 -q "$device"
if "$vhd" mount k.vhdx mnt 2>/dev/null; then exit 1; fi
"$vhd" unmount k.vhdx
"$vhd" mount k.vhdx mnt
"$vhd" unmount mnt
nothing_left
echo 'ok 4k sectors, in use'

"$vhd" mount k.vhdx file --file --writable
printf abc | dd of=file/disk bs=1 seek=1000003 conv=notrunc status=none
[ "$(dd if=file/disk bs=1 skip=1000003 count=3 status=none)" = abc ]
if truncate -s 1M file/disk 2>/dev/null; then exit 1; fi
"$vhd" unmount file
qemu-img convert -f vhdx -O raw k.vhdx k.raw 2>/dev/null || cp k.vhdx k.raw
nothing_left
# a hole is zeros, and of a raw image's file it is a hole too
truncate -s 8M h.raw
for image in h.raw k.vhdx; do
	"$vhd" mount $image file --file --writable
	tr '\000' x </dev/zero | dd of=file/disk bs=1M count=8 iflag=fullblock conv=notrunc,fsync status=none
	before=$(stat -c %b $image)
	fallocate -p -o 1M -l 4M file/disk
	[ -z "$(dd if=file/disk bs=1M skip=1 count=4 status=none | tr -d '\000' | head -c 1)" ]
	[ "$(dd if=file/disk bs=1M skip=5 count=1 status=none | head -c 1)" = x ]
	[ $image = k.vhdx ] || [ $(($(stat -c %b $image) * 512 + (4 << 20))) -le $((before * 512)) ]
	"$vhd" unmount file
done
nothing_left
echo 'ok file'

make large.vhdx 64T --block-size 1M
"$vhd" mount large.vhdx file --file --writable
for at in 7 4000000 50000000; do
	dd if=/dev/urandom of=file/disk bs=1M count=1 seek=$at conv=notrunc status=none
done
qemu-img map -f raw --output=json file/disk | sed -n 's/.*"start": \([0-9]*\),.*"data": true.*/\1/p' >out
[ "$(cat out)" = "$(printf '7340032\n4194304000000\n52428800000000')" ]
"$vhd" unmount file
nothing_left
echo 'ok holes'

# A child lies on a disk that does nothing for a while, its parent does not. What the child's server
# cannot finish is a flush first, then zeroes and a write behind it. The kernel lets no write pass a
# flush of a mounted file, clients of NBD do.
make fast.vhdx 64M
"$vhd" mount fast.vhdx file --file --writable
head -c 2M /dev/zero | tr '\0' p >first
dd if=first of=file/disk conv=notrunc status=none
"$vhd" unmount file
nothing_left
"$vhd" create late.vhdx --parent fast.vhdx
"$vhd" mount late.vhdx file --file --writable
for at in 20 22 24 26 40 42; do # the file will not grow any more
	dd if=first of=file/disk bs=1M seek=$at conv=notrunc status=none
done
"$vhd" unmount file
nothing_left
mkdir low
"$vhd" mount late.vhdx low --file --writable --format raw
client() { # COMMAND: of qemu-io
	qemu-io -f raw -c "$1" 'nbd+unix:///?socket=socket' >/dev/null
}

all_end() { # $waiting, when the disk goes on; none of them may have ended before
	for pid in $waiting; do
		if grep '^State:.Z' "/proc/$pid/status"; then exit 1; fi
	done
	kill -CONT "$slow"
	slow=
	for pid in $waiting; do
		wait "$pid"
	done
}

"$vhd" mount low/disk file --file --writable --search .
dd if=first of=file/disk bs=1M seek=42 conv=notrunc status=none
dd if=file/disk bs=1M count=1 status=none | cmp -n 1048576 - first
slow=$(server_of late.vhdx)
kill -STOP "$slow"
waiting=
sync file/disk & waiting="$waiting $!"
sleep 0.3
fallocate -z -o 20M -l 8M file/disk & waiting="$waiting $!"
sleep 0.3
for block in 0 1 100 511; do
	timeout 10 dd if=file/disk of=got bs=4k count=1 skip=$block status=none
	dd if=first bs=4k count=1 skip=$block status=none | cmp - got
done
all_end
dd if=file/disk bs=1M skip=42 count=2 status=none | cmp - first
[ -z "$(dd if=file/disk bs=1M skip=20 count=8 status=none | tr -d '\0')" ]
"$vhd" unmount file
"$vhd" serve low/disk --socket socket --writable --search . >/dev/null &
serving=$!
until [ -S socket ]; do sleep 0.1; done
client 'read -P 0x70 0 1M' # its tables are in memory then, and its log is in use
client 'write -P 0x76 42M 1M'
slow=$(server_of late.vhdx)
kill -STOP "$slow"
waiting=
client 'flush' & waiting="$waiting $!"
sleep 0.3
client 'write -P 0x77 42M 1M' & waiting="$waiting $!"
client 'write -z 40M 1M' & waiting="$waiting $!"
sleep 0.3
timeout 10 qemu-io -r -f raw -c 'read -P 0x70 0 1M' 'nbd+unix:///?socket=socket' >out
if grep failed out; then exit 1; fi
all_end
client 'read -P 0x77 42M 1M'
kill "$serving"
wait "$serving"
serving=
"$vhd" unmount low
nothing_left
echo 'ok reads while others wait'

"$vhd" mount a.vhdx mnt --writable
status=/proc/$(server)/status
if ! grep -q __asan_init "$vhd"; then
	grep -q '^Seccomp:.2$' "$status"
	grep -q '^NoNewPrivs:.1$' "$status"
fi
keeper=$(sed -n 's/^PPid:.//p' "$status")
[ "$(cat "/proc/$keeper/comm")" = vhd ]
id=$(basename "$(grep -l "$tmp/a.vhdx" /run/partita/vhd-mounts/*.json)" .json)
kill -9 "$keeper"
echo x >mnt/kept
sync mnt/kept
"$vhd" mount --list | grep "$tmp/a.vhdx" | grep -qv gone
"$vhd" unmount a.vhdx 2>out
[ ! -s out ]
nothing_left
[ -z "$(ls /run/partita/vhd-mounts | grep "$id")" ]
"$vhd" info a.vhdx --json | grep -q '"dirty_log": false'
"$vhd" mount a.vhdx mnt
[ "$(cat mnt/kept)" = x ]
"$vhd" unmount mnt
nothing_left

# the keeper is killed, and the mount ends without vhd: what is left is only to be cleaned up
"$vhd" mount a.vhdx mnt --writable
server=$(server)
kill -9 "$(sed -n 's/^PPid:.//p' "/proc/$server/status")"
echo y >mnt/kept
umount mnt
for try in $(seq 100); do
	[ -e "/proc/$server" ] || break
	sleep 0.1
done
"$vhd" mount --list | grep "$tmp/a.vhdx" | grep -q 'server is gone'
# its device may be another one's by now
device=$("$vhd" mount m.raw --device)
"$vhd" unmount "$device"
no_device "$device"
"$vhd" mount --list | grep "$tmp/a.vhdx" | grep -q 'server is gone'
"$vhd" unmount a.vhdx 2>out
[ ! -s out ]
nothing_left
"$vhd" info a.vhdx --json | grep -q '"dirty_log": false'
"$vhd" mount a.vhdx mnt
[ "$(cat mnt/kept)" = y ]
kill -9 "$(server)"
"$vhd" unmount a.vhdx 2>out
[ ! -s out ]
nothing_left
echo 'ok box, killed keeper'

"$vhd" mount a.vhdx mnt --writable
kill -9 "$(server)"
if { echo x >mnt/lost && sync mnt/lost; } 2>/dev/null; then exit 1; fi
for try in $(seq 100); do # the kernel fails the write before the process is quite gone
	if "$vhd" mount --list | grep "$tmp/a.vhdx" | grep -q 'server is gone'; then break; fi
	sleep 0.1
done
[ "$try" -lt 100 ]
"$vhd" unmount a.vhdx 2>out
grep -q 'not flushed is lost' out
nothing_left
"$vhd" mount a.vhdx --device --writable >name
kill -9 "$(server)"
"$vhd" unmount a.vhdx 2>/dev/null
no_device "$(cat name)"
nothing_left
"$vhd" check a.vhdx >/dev/null
echo 'ok killed server'

echo rubbish >bad.vhdx
if "$vhd" mount bad.vhdx --device --format vhdx 2>/dev/null; then exit 1; fi
if "$vhd" mount nowhere.vhdx --device 2>/dev/null; then exit 1; fi
make e.vhdx 64M
if "$vhd" mount e.vhdx mnt 2>/dev/null; then exit 1; fi
nothing_left
echo 'ok failures'
