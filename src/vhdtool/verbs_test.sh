#!/bin/sh
# SPDX-License-Identifier: MIT
#
# verbs_test.sh VHD: what the verbs on whole images and sets promise: create, info, check and its
# repairs, convert (stopped, resumed, without space), map, compare, dump; and what they refuse.
set -eu

vhd=$(realpath "$1")
. "$(dirname "$0")/testlib.sh"
tmp=$(mktemp -d)
mounted=
trap '[ -z "$mounted" ] || umount "$mounted"; rm -rf "$tmp"' EXIT
trap 'exit 130' HUP INT TERM
cd "$tmp"

echo '# create, info'
want 0 '' create empty.vhdx --size 64M --block-size 1M
want 1 'exists; --force' create empty.vhdx --size 64M
want 0 '' create empty.vhdx --size 64M --block-size 1M --force
want 2 'say --size' create other.vhdx
want 1 'block size of 3145728' create other.vhdx --size 1G --block-size 3M
want 1 'cannot make "nowhere/x.vhdx' create nowhere/x.vhdx --size 1G
want 2 'is not a size' create other.vhdx --size many
want 0 '' create four.vhdx --size 16M --sector-size 4096
want 0 'logical_sector *4096' info four.vhdx
want 0 '' create largest.vhdx --size 64T --block-size 1M
want 0 'size *70368744177664' info largest.vhdx
[ "$(du -k largest.vhdx | cut -f 1)" -le 4096 ] || fail 'an empty image of 64 TiB takes much space'
want 0 '' create fixed.vhdx --size 8M --fixed
want 0 'fixed *true' info fixed.vhdx
! ls ./*.partial* >/dev/null 2>&1 || fail 'something unfinished is left'

echo '# convert, compare, map'
for i in 0 3 4 9; do
	dd if=/dev/urandom of=disk.raw bs=1M count=1 seek=$i conv=notrunc 2>/dev/null
done
dd if=/dev/zero of=disk.raw bs=1M count=2 seek=14 conv=notrunc 2>/dev/null
truncate -s 32M disk.raw
want 0 '' convert disk.raw disk.vhdx --block-size 1M
want 0 'hold the same' compare disk.raw disk.vhdx
want 0 '4 of 32 blocks present' check disk.vhdx
want 0 '' convert disk.vhdx back.raw
cmp disk.raw back.raw || fail 'there and back is not the same'
[ "$(du -k back.raw | cut -f 1)" -le 5000 ] || fail 'zeros take space'
want 0 '^0x300000 *0x200000 *data *0' map disk.vhdx
want 0 '' convert disk.vhdx larger.vhdx --size 48M
want 3 '33554432 and 50331648' compare disk.raw larger.vhdx
want 0 'hold the same' compare disk.raw larger.vhdx --allow-size
poke back.raw 4000000 X
want 3 'at byte 4000000$' compare back.raw disk.vhdx
want 1 'smaller' convert disk.raw smaller.vhdx --size 1M
[ ! -e smaller.vhdx ] || fail 'a refused copy left a file'
if command -v qemu-img >/dev/null; then
	qemu-img convert -O qcow2 disk.raw disk.qcow2
	want 0 'with qemu-img' convert disk.qcow2 from-qcow2.vhdx
	want 0 'hold the same' compare disk.raw from-qcow2.vhdx
	qemu-img compare -q disk.raw disk.vhdx || fail 'qemu-img reads something else'
fi

echo '# chains'
want 0 '' create child.vhdx --parent disk.vhdx
want 0 '"differencing": true' info child.vhdx --chain --json
want 0 'file *.*disk.vhdx' info child.vhdx --chain
want 0 '^0x300000 *0x200000 *data *1' map child.vhdx
want 0 'hold the same' compare child.vhdx disk.raw
want 0 'relative_path *.*disk.vhdx' dump child.vhdx
want 0 '' convert child.vhdx flat.vhdx
want 0 'hold the same' compare flat.vhdx disk.raw

echo '# dump'
want 0 'chunk_ratio *4096' dump disk.vhdx
want 0 '"fully_present": 4' dump disk.vhdx --bat --json
want 1 'no structures' dump disk.raw

echo '# a copy that was stopped'
dd if=/dev/urandom of=big.raw bs=1M count=300 2>/dev/null
what="vhdx $((300 << 20)) 0 512 0"
"$vhd" convert big.raw big.vhdx --no-flush
mv big.vhdx big.vhdx.partial
size=$(stat -c %s big.raw)
stat -c 'vhd-convert 1 %d:%i size %s time %.9Y to' big.raw | sed "s/\$/ $what/" >big.vhdx.partial.state
echo "done $((256 << 20))" >>big.vhdx.partial.state
want 0 'going on after 256 MiB' convert big.raw big.vhdx --resume
want 0 'hold the same' compare big.raw big.vhdx
[ ! -e big.vhdx.partial.state ] || fail 'the state is still there'
rm big.vhdx
echo 'something else' >big.vhdx.partial.state
: >big.vhdx.partial
want 0 '' convert big.raw big.vhdx --resume
want 0 'hold the same' compare big.raw big.vhdx
rm -f big.*

echo '# repairs'
# repaired NAME STATUS WORDS: the damaged image NAME becomes one that passes the check.
repaired() {
	want "$2" "$3" check "$1" --repair --output repaired.vhdx --force
	want 0 '^repaired.vhdx: 0 damaged' check repaired.vhdx
}
damaged() {
	cp disk.vhdx bad.vhdx
}
bat=$((3 << 20))
damaged
repaired bad.vhdx 0 '0 mended, 0 risks, 0 ranges'
poke bad.vhdx 0 XXXXXXXX
want 3 'does not start with' check bad.vhdx
repaired bad.vhdx 0 'first bytes'
damaged
poke bad.vhdx $((64 << 10)) XX
repaired bad.vhdx 0 'header 1 is written again'
poke bad.vhdx $((128 << 10)) XX
want 3 'both VHDX headers' check bad.vhdx
repaired bad.vhdx 3 'both headers are damaged'
want 0 'hold the same' compare repaired.vhdx disk.raw
damaged
poke bad.vhdx $((192 << 10)) XX
repaired bad.vhdx 0 'region table 1'
poke bad.vhdx $((256 << 10)) XX
repaired bad.vhdx 3 'made anew.*3 MiB with 4 blocks'
want 0 'hold the same' compare repaired.vhdx disk.raw
damaged # the entry of block 3 becomes that of block 0
dd if=disk.vhdx of=bad.vhdx bs=8 skip=$((bat / 8)) seek=$((bat / 8 + 3)) count=1 conv=notrunc 2>/dev/null
want 3 'block 3: overlaps' check bad.vhdx
repaired bad.vhdx 3 'bytes 3145728 to 4194303 of the disk are lost'
want 3 'at byte 3145728$' compare repaired.vhdx disk.raw
damaged
poke bad.vhdx $((bat + 6)) '\377'
want 3 'block 0: lies at' check bad.vhdx
repaired bad.vhdx 3 'bytes 0 to 1048575 .*outside the file'
damaged
truncate -s -1536K bad.vhdx
repaired bad.vhdx 3 'bytes .* of the disk are lost'
for size in 0 1 511 65536 1000000 1048576 2500000; do
	head -c $size disk.vhdx >cut.vhdx
	want 1 "cut.vhdx: " check cut.vhdx --repair --output never.vhdx
	[ ! -e never.vhdx ] || fail "a repair that failed left a file"
done
want 2 '--output FILE' check disk.vhdx --repair

echo '# VHD'
want 0 '' convert disk.raw disk.vhd
want 0 'present *[1-9]' dump disk.vhd
want 0 '"file_offset"' dump disk.vhd --bat --json
want 0 '' compact disk.vhd --zeros
want 2 'no option --direct' compact disk.vhd --direct # it always is
want 0 'hold the same' compare disk.vhd disk.raw
# repaired_vhd STATUS WORDS: bad.vhd becomes one that passes the check.
repaired_vhd() {
	want "$1" "$2" check bad.vhd --repair --output repaired.vhd --force
	want 0 '^repaired.vhd: 0 damaged' check repaired.vhd
}
cp disk.vhd bad.vhd
repaired_vhd 0 '0 mended, 0 risks, 0 ranges'
poke bad.vhd 0 XXXXXXXX
repaired_vhd 0 'copy of the footer at the start'
truncate -s -512 bad.vhd
want 3 'neither of its footers' check bad.vhd
repaired_vhd 3 'both footers are damaged'
want 0 'hold the same' compare repaired.vhd disk.raw --allow-size
truncate -s -1M bad.vhd
repaired_vhd 3 'bytes .* of the disk are lost'
want 0 '' convert disk.raw bad.vhd --fixed --force
echo garbage >>bad.vhd
want 0 'format *vhd' info bad.vhd
want 1 'check --repair' resize bad.vhd 64M
repaired_vhd 0 'cut off'
want 0 'hold the same' compare repaired.vhd disk.raw

echo '# sets'
want 0 '' share fixed.vhdx fixed.set
want 0 '^image *fixed.vhdx$' info fixed.set
want 0 '^reservation *none$' info fixed.set
want 0 '"registrations": 0' info fixed.set --json
want 0 '"used": false' info fixed.set --json
want 0 '^fixed.set: 0 damaged' check fixed.set
want 0 'image_format *vhdx' dump fixed.set
want 0 '"generation": 0' dump fixed.set --json
want 1 'share the image "fixed.vhdx", and no image' convert fixed.set never.vhdx
want 1 'make a new one with vhd share' check fixed.set --repair --in-place
poke fixed.set 70 X
want 3 'its checksum is wrong' check fixed.set
want 1 'its checksum is wrong' info fixed.set
want 0 'damage *the set is damaged' dump fixed.set

echo '# changes'
want 1 'are not tracked' track disk.vhdx --list
want 0 '' track disk.vhdx --enable
point=$(cat out)
want 1 'tracked already' track disk.vhdx --enable
want 0 "^$point .*known" track disk.vhdx --list
want 0 '"changed": \[\]' track disk.vhdx --since "$point" --json
want 0 '' track disk.vhdx --point
want 0 '' resize disk.vhdx +1M
want 0 '^0x2000000 *0x100000$' track disk.vhdx --since "$point"
want 0 '' resize disk.vhdx 32M --shrink
want 2 'is no id' track disk.vhdx --since yesterday
want 1 'there is no point' track disk.vhdx --since 01234567-89ab-cdef-0123-456789abcdef
cp disk.vhdx replaced.vhdx
mv replaced.vhdx disk.vhdx
want 3 'everything may have changed' track disk.vhdx --since "$point"
want 0 '' track disk.vhdx --drop "$point"
want 0 '' track disk.vhdx --disable
[ ! -e disk.vhdx.track ] || fail 'the track file is still there'
cp disk.raw disk.vhdx.track
want 1 'no track file' resize disk.vhdx 33M
rm disk.vhdx.track

echo '# what is refused'
want 1 'cannot open "missing"' info missing
want 1 'missing' convert missing new.vhdx
want 1 'neither a regular file nor' info /dev/null
want 3 'damage' check cut.vhdx
if command -v flock >/dev/null && command -v python3 >/dev/null; then
	python3 - disk.vhdx <<-'END' &
		import fcntl, struct, sys, time
		f = open(sys.argv[1], "r+b")
		fcntl.fcntl(f, 37, struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0))
		open("locked", "w").close()
		time.sleep(5)
	END
	holder=$!
	until [ -e locked ]; do sleep 0.1; done
	want 1 'disk.vhdx: another process has the image open for writing' info disk.vhdx
	kill $holder
	wait $holder 2>/dev/null || :
fi
if [ "$(id -u)" = 0 ] && mkdir small && mount -t tmpfs -o size=2M none small 2>/dev/null; then
	mounted=$tmp/small
	want 1 'MiB are missing' convert disk.raw small/disk.vhdx
	want 1 'no space left' convert disk.raw small/disk.raw --no-space-check
	[ -z "$(ls small)" ] || fail 'a failed copy left something'
	truncate -s 64T small/disk.raw
	want 1 'No space left' track small/disk.raw --enable
	[ "$(ls small)" = disk.raw ] || fail 'a track file is left'
elif [ "$(id -u)" != 0 ]; then
	: >nothing
	chmod 0 nothing
	want 1 'cannot open "nothing": Permission denied' info nothing
fi
echo '# done'
