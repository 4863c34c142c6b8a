#!/bin/sh
# SPDX-License-Identifier: MIT
#
# files_test.sh VHD: ls, cat and cp on file systems inside images, without root: ext, FAT and NTFS;
# raw, VHD, VHDX and chains; partitions; full, damaged and hostile file systems; that others' checks
# find nothing after we wrote; and readers: what they are given, and what is said when one is missing.
set -eu

vhd=$(realpath "$1")
. "$(dirname "$0")/testlib.sh"
PATH=$PATH:/usr/sbin:/sbin
for tool in mke2fs e2fsck debugfs sfdisk; do
	command -v $tool >/dev/null || { echo "skipped: no $tool"; exit 77; }
done

tmp=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || :; chmod -R u+rwx "$tmp"; rm -rf "$tmp"' EXIT
trap 'exit 130' HUP INT TERM
cd "$tmp"
export MTOOLS_SKIP_CHECK=1

# same IMAGE PATH FILE [OPTION...]: the file in the image has that content.
same() {
	image=$1 path=$2 file=$3
	shift 3
	"$vhd" cat "$image" "$path" "$@" | cmp - "$file" || fail "$image:$path is not $file"
}

where() { # FILE TEXT: the first place
	grep -obUa -e "$2" "$1" | head -n 1 | cut -d : -f 1
}

clean_ext() {
	e2fsck -fn "$1" >out 2>&1 || fail "e2fsck: $1"
}

# with_ext SIZE OPTION...: fs.raw, with the tree on it.
with_ext() {
	size=$1
	shift
	rm -f fs.raw
	mke2fs -q -F "$@" -d tree fs.raw "$size" >/dev/null 2>&1 || fail "mke2fs $*"
}

# in_partition LABEL SIZE-IN-MiB: fs.raw as the second partition of disk.raw; the first holds nothing.
in_partition() {
	rm -f disk.raw
	truncate -s "$(($2 + 40))M" disk.raw
	printf 'label: %s\nstart=2048,size=16M\nsize=%sM\n' "$1" "$2" | sfdisk -q disk.raw
	dd if=fs.raw of=disk.raw bs=1M seek=17 conv=notrunc,sparse 2>/dev/null
}

# out_of_partition: and back, for the checks.
out_of_partition() {
	"$vhd" convert "$1" whole.raw --force >/dev/null
	dd if=whole.raw of=fs.raw bs=1M skip=17 count="$2" conv=sparse 2>/dev/null
}

mkdir -p tree/dir/deep
echo hello >tree/hello
head -c 300000 /dev/urandom >tree/dir/random
: >tree/dir/empty
truncate -s 3M tree/sparse
printf end >>tree/sparse
i=0
while [ $i -lt 300 ]; do
	echo $i >"tree/dir/deep/a name with blanks $i"
	i=$((i + 1))
done
cp -r tree plain # without links, for FAT and NTFS
ln -s hello tree/link
ln -s /dir/random tree/absolute
ln -s ../../../dir/../hello tree/dir/up
ln -s loop tree/loop
ln -s "$(head -c 200 /dev/zero | tr '\0' x)" tree/long
chmod 640 tree/hello
chmod 4755 tree/dir/empty
touch -d '2003-04-05 06:07:08' tree/hello tree/dir plain/hello plain/dir
touch -h -d '2001-02-03' tree/link
chmod 4755 tree/dir/empty

echo '# ext: reading'
for options in '-t ext4' '-t ext4 -b 4096 -O inline_data -I 256' '-t ext2 -b 1024' '-t ext3'; do
	with_ext 32M $options
	want 0 '^hello$' ls fs.raw
	want 0 '^-rw-r----- .* 6 2003-04-05T06:07:08Z hello$' ls fs.raw --long
	want 0 'link -> hello' ls fs.raw -l
	want 0 '^dir/deep/a name with blanks 299$' ls fs.raw -r
	want 0 '"target": "/dir/random"' ls fs.raw --json
	want 0 '^random$' ls fs.raw /dir
	want 0 '^/hello$' ls fs.raw /hello
	same fs.raw /hello tree/hello
	same fs.raw /link tree/hello
	same fs.raw /dir/up tree/hello
	same fs.raw /absolute tree/dir/random
	same fs.raw /sparse tree/sparse
	rm -rf copy
	want 0 '' cp fs.raw:/ copy --recursive
	rmdir copy/lost+found
	diff -r --no-dereference tree copy || fail 'the copy differs'
	[ "$(stat -c '%a %Y' copy/hello)" = "$(stat -c '%a %Y' tree/hello)" ] || fail 'mode, time'
	[ "$(stat -c %Y copy/dir copy/link)" = "$(stat -c %Y tree/dir tree/link)" ] || fail 'times'
	[ "$(stat -c %a copy/dir/empty)" = 755 ] || fail 'the set-uid bit came along'
	[ "$(du -k copy/sparse | cut -f 1)" -le 100 ] || fail 'holes take space'
done

echo '# ext: what is refused'
want 1 'there is no "nothing"' cat fs.raw /nothing
want 1 'there is no "nothing"' ls fs.raw /dir/nothing/more
want 1 'before "more" is no folder' ls fs.raw /hello/more
want 1 'before "." is no folder' ls fs.raw /hello/.
want 1 'is a folder' cat fs.raw /dir
want 1 'more than 40 symbolic links' cat fs.raw /loop
want 1 '\-\-recursive' cp fs.raw:/dir never
want 1 '\-\-force' cp fs.raw:/hello copy/hello
want 0 '' cp fs.raw:/hello copy/hello --force
want 0 '' cp fs.raw:/link copy/dir
[ "$(readlink copy/dir/link)" = hello ] || fail 'a link'
want 2 'IMAGE:/PATH' cp fs.raw hello
want 2 'both' cp fs.raw:/hello fs.raw:/other
want 1 'cannot open' cp fs.raw:/hello nowhere/hello
want 1 'cannot open "missing"' ls missing
! ls copy/.vhd-cp* nowhere 2>/dev/null || fail 'something unfinished is left'

echo '# ext: writing'
for options in '-t ext4' '-t ext4 -b 4096 -O inline_data,64bit -I 256' '-t ext2 -b 1024' '-t ext3' \
	'-t ext4 -O ^extent,^64bit,^metadata_csum,^dir_index'; do
	with_ext 32M -N 2000 $options
	want 0 '' cp tree fs.raw:/new --recursive
	clean_ext fs.raw
	rm -rf copy
	want 0 '' cp fs.raw:/new copy --recursive
	diff -r --no-dereference tree copy || fail 'there and back differs'
	want 1 '\-\-force' cp tree/dir/random fs.raw:/hello
	want 0 '' cp tree fs.raw:/new/../new --recursive
	want 1 '\-\-force' cp tree fs.raw:/new --recursive
	want 1 'no plain file' cp tree/hello fs.raw:/loop --force
	want 1 'no plain file' cp tree/hello fs.raw:/dir/up --force
	mkdir -p named/hello
	: >named/dir
	want 1 'a folder' cp -f named/dir fs.raw:/new/..//dir/deep/../..
	want 1 'has that name' cp -r named/hello fs.raw:/
	want 1 'there is no "nowhere"' cp tree/hello fs.raw:/nowhere/hello
	want 0 '' cp tree/dir/random fs.raw:/hello --force
	same fs.raw /hello tree/dir/random
	want 0 " $(id -u)  *$(id -g) .* hello$" ls fs.raw -l / # who had it before
	want 0 ' 0  *0 .* new$' ls fs.raw -l
	want 0 '' cp tree/hello fs.raw:/dir
	same fs.raw /dir/hello tree/hello
	clean_ext fs.raw
	head -c 40M /dev/zero >big
	want 1 'is full; what was copied of the file is removed' cp big fs.raw:/big
	clean_ext fs.raw
	want 1 'there is no "big"' ls fs.raw /big
	mkdir -p many
	(cd many && seq -f 'some-file-with-a-long-name-%g' 2000 | xargs touch)
	want 1 'full' cp many fs.raw:/ -r
	clean_ext fs.raw
	[ "$("$vhd" ls fs.raw /many | wc -l)" -gt 500 ] || fail 'a full table of inodes'
done

echo '# ext: large, stopped, in use'
rm -f big fs.raw
mke2fs -q -F -t ext4 fs.raw 6G >/dev/null 2>&1
truncate -s 5G big
poke big 4294967300 data
want 0 '' cp big fs.raw:/big
want 0 ' 5368709120 ' ls fs.raw -l
want 0 '' cp fs.raw:/big back
cmp -i 4294960000 big back || fail 'more than 4 GiB'
[ "$(du -k back | cut -f 1)" -le 1000 ] || fail 'holes take space'
clean_ext fs.raw
rm -f big back
head -c 200M /dev/zero >big
"$vhd" cp big fs.raw:/stopped 2>err &
copier=$!
sleep 0.2
kill -INT $copier 2>/dev/null || :
if ! wait $copier; then
	grep -q 'stopped' err || fail 'a copy that was stopped'
	want 1 'there is no "stopped"' ls fs.raw /stopped
fi
clean_ext fs.raw
"$vhd" cp big fs.raw:/killed 2>err &
copier=$!
until dumpe2fs -h fs.raw 2>/dev/null | grep -q 'state: *not clean' || ! kill -0 $copier 2>/dev/null; do
	sleep 0.01
done
kill -STOP $copier 2>/dev/null || :
reader=$(cat /proc/$copier/task/$copier/children 2>/dev/null) || reader=
reader=${reader% }
if [ -n "$reader" ] && ! grep -q __asan_init "$vhd"; then
	grep -q '^Seccomp:.2$' "/proc/$reader/status" || fail 'a reader without its box'
	# only root may look
	[ "$(id -u)" != 0 ] || [ "$(ls "/proc/$reader/fd")" = 0 ] || fail 'a reader has files open'
fi
if kill -9 $copier 2>/dev/null && ! wait $copier 2>/dev/null; then
	want 0 'was not unmounted, and is read as it lies' ls fs.raw
	want 1 'not written to: the file system was not unmounted' cp tree/hello fs.raw:/x
	want 1 'there is no "killed"' ls fs.raw /killed
	e2fsck -fy fs.raw >/dev/null 2>&1 || :
	clean_ext fs.raw
	want 0 '' cp tree/hello fs.raw:/x
fi
rm -f big
with_ext 32M -t ext4
"$vhd" serve fs.raw --socket socket --writable >/dev/null 2>&1 &
server=$!
until [ -S socket ]; do sleep 0.1; done
want 1 'another process has the image open' cp tree/hello fs.raw:/x
kill $server
wait $server 2>/dev/null || :
server=
if [ "$(id -u)" != 0 ]; then
	chmod 444 fs.raw
	want 1 'for writing: Permission denied' cp tree/hello fs.raw:/x
	want 0 '' ls fs.raw
	chmod 644 fs.raw
fi

echo '# images and partitions'
for label in dos gpt; do
	with_ext 32M -t ext4
	in_partition $label 32
	want 0 '^hello$' ls disk.raw
	want 0 '^hello$' ls disk.raw --partition 2
	want 1 'partition 1 does not begin with a file system' ls disk.raw --partition 1
	want 1 'there is no partition 3' ls disk.raw --partition 3
	for format in vhd vhdx; do
		"$vhd" convert disk.raw disk.$format --force >/dev/null
		want 0 '' cp tree disk.$format:/new -r
		same disk.$format /new/dir/random tree/dir/random
		rm -f child.$format
		"$vhd" create child.$format --parent disk.$format
		want 0 '' cp tree/dir/random child.$format:/hello --force
		same child.$format /hello tree/dir/random
		same disk.$format /hello tree/hello
		"$vhd" check child.$format >out || fail 'the child'
		out_of_partition child.$format 32
		clean_ext fs.raw
	done
done
rm -f disk.vhdx
"$vhd" create disk.vhdx --size 64M --sector-size 4096
"$vhd" convert disk.vhdx disk.raw --force >/dev/null
mke2fs -q -F -t ext4 -b 4096 -d tree disk.raw 64M >/dev/null 2>&1
"$vhd" convert disk.raw disk.vhdx --sector-size 4096 --force >/dev/null
want 0 '' cp tree/hello disk.vhdx:/new
same disk.vhdx /new tree/hello

echo '# what is read with a warning, and not written to'
with_ext 32M -t ext4
debugfs -w -R 'feature needs_recovery' fs.raw >/dev/null 2>&1
want 0 'the journal was not replayed' ls fs.raw
cp fs.raw before.raw
want 1 'not written to: the journal was not replayed; .*vhd mount' cp tree/hello fs.raw:/x
cmp fs.raw before.raw || fail 'a refused write changed something'
with_ext 32M -t ext4 -O quota
want 1 'the feature quota' cp tree/hello fs.raw:/x
want 0 '' ls fs.raw
with_ext 32M -t ext4 -O bigalloc
want 1 'the feature bigalloc' cp tree/hello fs.raw:/x
same fs.raw /dir/random tree/dir/random

echo '# damaged and hostile ext'
with_ext 32M -t ext4
poke fs.raw 1080 XX
want 1 'does not begin with a file system' ls fs.raw
with_ext 32M -t ext4
poke fs.raw 1028 XXXX
want 1 'superblock (byte 1024' ls fs.raw
mkdir hostile
mkdir hostile/link2 outside
echo evil >hostile/link2/file
echo evil >hostile/aaTbbTescape
echo fine >hostile/fine
ln -s ../outside hostile/link1
printf '\001' >hostile/"$(printf 'new\nline \033[2J \377')"
mkfifo hostile/pipe
rm -f fs.raw
mke2fs -q -F -t ext4 -O ^metadata_csum,^dir_index -d hostile fs.raw 8M >/dev/null 2>&1
poke fs.raw "$(where fs.raw aaTbbTescape)" ../../escape
poke fs.raw "$(where fs.raw link2)" link1
mkdir -p within/a
want 1 'left out' cp fs.raw:/ within/a/b -r
grep -q '"/../../escape" is left out: a name that no file can have' err || fail 'a name that leads out'
grep -q 'pipe" is left out' err || fail 'a pipe'
[ -z "$(ls outside)" ] && ! [ -e within/escape ] && ! [ -e within/a/escape ] || fail 'something is outside'
[ "$(cat within/a/b/fine)" = fine ] || fail 'what is well is not there'
want 0 'new\\012line \\033\[2J \\377' ls fs.raw
want 0 '"path_hex": "6e65770a6c696e65201b5b324a20ff"' ls fs.raw --json

with_ext 32M -t ext4
debugfs -w -R 'set_inode_field /hello size 0xffffffffffffffff' fs.raw >/dev/null 2>&1
want 3 '^sparse' ls fs.raw
want 1 'hello" is left out: its inode is damaged' cp fs.raw:/ damaged -r
cmp damaged/sparse tree/sparse || fail 'what is well is not there'
mkdir -p rings/a/b rings/c
rm -f fs.raw
mke2fs -q -F -t ext4 -O ^metadata_csum,^dir_index -d rings fs.raw 8M >/dev/null 2>&1
for name in /a/b/up /a/b/up2 /c/again; do
	debugfs -w -R "ln /a $name" fs.raw >/dev/null 2>&1
done
want 3 'c/again' ls fs.raw -r
want 1 'a folder that is in two places' cp fs.raw:/ rings-out -r

# Whatever bytes are wrong: an answer, in time, and no crash of the tool itself.
damage() {
	size=$(stat -c %s "$1")
	for seed in 1 2 3 4 5 6; do
		cp "$1" bad.raw
		awk -v seed="$seed" -v size="$size" 'BEGIN {
			srand(seed)
			for (i = 0; i < 25; i++)
				print int(rand() * rand() * rand() * size), int(rand() * 256)
		}' | while read -r at byte; do
			poke bad.raw "$at" "$(printf '\\%03o' "$byte")"
		done
		got=0
		rm -rf wild
		timeout 100 "$vhd" cp bad.raw:/ wild -r >out 2>err || got=$?
		[ "$got" -le 1 ] || fail "damage $seed of $1: status $got"
		got=0
		timeout 100 "$vhd" ls bad.raw -r -l >out 2>err || got=$?
		[ "$got" -le 3 ] || fail "damage $seed of $1: status $got"
		got=0
		timeout 100 "$vhd" cp tree/dir bad.raw:/x -r >out 2>err || got=$?
		[ "$got" -le 1 ] || fail "damage $seed of $1: status $got"
	done
}
rm -f fs.raw
mke2fs -q -F -t ext4 -O ^metadata_csum -d tree fs.raw 4M >/dev/null 2>&1
damage fs.raw
rm -f fs.raw
mke2fs -q -F -t ext2 -d tree fs.raw 4M >/dev/null 2>&1
damage fs.raw

echo '# readers'
with_ext 32M -t ext4
if ldd "$vhd" | grep -e ext2fs -e ntfs; then fail 'vhd links a library of a file system'; fi
mkdir none other
export PARTITA_LIBEXEC="$tmp/none"
want 0 '^NTFS: partita-files-ntfs, with libntfs-3g (not installed)$' --version
want 1 "holds ext2/3/4, .*partita-files-ext is not in $tmp/none: .*option ext2fs" ls fs.raw
truncate -s 1M ntfs.raw
poke ntfs.raw 3 'NTFS    '
want 1 "holds NTFS, .*partita-files-ntfs is not in $tmp/none: .*option ntfs3g" ls ntfs.raw
want 1 'partita-files-ntfs is not in' cp tree/hello ntfs.raw:/x
PARTITA_LIBEXEC=$tmp/other
cat >other/partita-files-ext <<END
#!/bin/sh
env >"$tmp/environment"
cd /proc/\$\$/fd
for fd in *; do readlink "\$fd" || :; done >"$tmp/descriptors"
exit 2
END
chmod +x other/partita-files-ext
want 1 'partita-files-ext does not start (status 2)' ls fs.raw
grep -q '^socket:' descriptors || fail 'a reader without a socket'
! grep -e fs.raw -e anon_inode descriptors || fail 'a reader has more than its socket'
! grep -q PARTITA environment || fail 'a reader has our environment'
echo >other/partita-files-ext
want 1 'partita-files-ext does not start (status 127)' ls fs.raw
unset PARTITA_LIBEXEC

echo '# other file systems'
truncate -s 1M xfs.raw
poke xfs.raw 0 XFSB
want 1 'holds XFS; .*vhd mount' ls xfs.raw
truncate -s 1M empty.raw
want 1 'does not begin with a file system' ls empty.raw
truncate -s 64M two.raw
printf 'label: gpt\nsize=20M\nsize=20M\n' | sfdisk -q two.raw
poke two.raw $(((1 << 20) + 3)) 'NTFS    '
poke two.raw $(((21 << 20) + 1080)) '\123\357'
want 1 '1 (NTFS), 2 (ext2/3/4); choose one with --partition' ls two.raw

fat() {
	command -v mkfs.fat >/dev/null && command -v mcopy >/dev/null || return 0
	echo '# FAT'
	for bits in 12:4M 16:20M 32:40M; do
		rm -rf fs.raw copy
		truncate -s "${bits#*:}" fs.raw
		mkfs.fat -F "${bits%:*}" fs.raw >/dev/null 2>&1
		mcopy -s -m -i fs.raw plain/hello plain/dir plain/sparse ::
		want 0 '^hello$' ls fs.raw
		same fs.raw /dir/random plain/dir/random
		same fs.raw '/DIR/deep/A NAME with blanks 7' 'plain/dir/deep/a name with blanks 7'
		want 0 '' cp fs.raw:/ copy -r
		diff -r plain copy || fail 'the copy differs'
		want 0 ' 6 2003-04-05T06:07:08Z hello' ls fs.raw -l
		want 1 'vhd mount --writable' cp tree/hello fs.raw:/x
		want 1 'is a folder' cat fs.raw /dir
		want 1 'there is no "nothing"' cat fs.raw /nothing
	done
	truncate -s 20M fs.raw
	mkfs.fat -F 16 fs.raw >/dev/null 2>&1
	mcopy -s -i fs.raw plain/dir ::
	damage fs.raw
	poke fs.raw 11 XX
	want 1 'boot sector (byte 0) is damaged' ls fs.raw
}

clean_ntfs() {
	ntfsfix -n "$1" >out 2>&1 || fail "ntfsfix: $1"
	ntfsresize -i -f "$1" >out 2>&1 || fail "ntfsresize: $1"
	! ntfsinfo -m "$1" 2>&1 | grep -q DIRTY || fail "$1 is dirty"
}

ntfs() {
	command -v mkntfs >/dev/null && command -v ntfscp >/dev/null || return 0
	if "$vhd" --version | grep -q 'NTFS.*not installed'; then return 0; fi
	echo '# NTFS'
	rm -rf fs.raw copy
	truncate -s 32M fs.raw
	mkntfs -q -F fs.raw >/dev/null 2>&1
	ntfscp -q fs.raw plain/dir/random random
	want 0 '^random$' ls fs.raw
	same fs.raw /RANDOM plain/dir/random
	want 0 '' cp plain fs.raw:/new -r
	clean_ntfs fs.raw
	want 0 '' cp fs.raw:/new copy -r
	diff -r plain copy || fail 'there and back differs'
	want 0 ' 6 2003-04-05T06:07:08Z hello' ls fs.raw /new -l
	[ "$(du -k copy/sparse | cut -f 1)" -le 200 ] || fail 'holes take space'
	want 1 'force' cp plain/hello fs.raw:/random
	want 1 'upper and lower case' cp plain/hello fs.raw:/RANDOM --force
	want 0 '' cp plain/hello fs.raw:/random --force
	same fs.raw /random plain/hello
	want 1 'Windows does not take' cp plain/hello 'fs.raw:/what?'
	mkdir links
	ln -s nowhere links/link
	echo there >links/there
	want 1 'links/link" is left out: symbolic links are not made on NTFS' cp links fs.raw:/ -r
	same fs.raw /links/there links/there
	head -c 40M /dev/zero >big
	want 1 'is full; what was copied of the file is removed' cp big fs.raw:/big
	want 1 'there is no "big"' ls fs.raw /big
	want 1 'there is no' ls fs.raw /vhd-cp
	[ "$("$vhd" ls fs.raw)" = "$(printf 'links\nnew\nrandom')" ] || fail 'something unfinished is left'
	clean_ntfs fs.raw
	cp fs.raw dirty.raw
	# the flags of the volume: an attribute of 12 bytes, version 3.1 before them
	for at in $(grep -obUaP '\x0c\0\0\0\x18\0\0\0\0\0\0\0\0\0\0\0\x03\x01' dirty.raw | cut -d : -f 1); do
		poke dirty.raw $((at + 18)) '\001'
	done
	want 0 'marked as dirty, and is read as it lies' ls dirty.raw
	want 1 'not written to: the file system is marked as dirty' cp plain/hello dirty.raw:/x
	in_partition gpt 32
	"$vhd" convert disk.raw disk.vhdx --force >/dev/null
	rm -f child.vhdx
	"$vhd" create child.vhdx --parent disk.vhdx
	want 0 '' cp plain/dir/random child.vhdx:/second
	same child.vhdx /second plain/dir/random
	out_of_partition child.vhdx 32
	clean_ntfs fs.raw
	damage fs.raw
	poke fs.raw 11 XX
	want 1 'damaged' ls fs.raw
}

fat
ntfs
echo '# done'
