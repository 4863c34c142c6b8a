#!/bin/sh
# SPDX-License-Identifier: MIT
#
# serve_test.sh VHD: others' NBD clients (libnbd, qemu-img) against `vhd serve`, in both directions,
# and clients that send rubbish; the server's box, and what happens when it or its keeper is killed.
set -eu

vhd=$(realpath "$1")
for tool in nbdcopy nbdinfo qemu-img; do
	command -v $tool >/dev/null || { echo "skipped: no $tool"; exit 77; }
done

tmp=$(mktemp -d)
pid= client=
trap '[ -z "$pid$client" ] || kill $pid $client 2>/dev/null || :; rm -rf "$tmp"' EXIT
trap 'exit 130' HUP INT TERM
cd "$tmp"
uri="nbd+unix:///?socket=$tmp/s"

serve() {
	# a caller that ignores hangups, as nohup(1) does, would have it ignore them too
	env --default-signal=HUP "$vhd" serve "$@" --socket s --pid-file ready &
	pid=$!
	for try in $(seq 100); do
		[ -e ready ] && return
		sleep 0.1
	done
	echo "it does not serve"
	exit 1
}

stop() {
	kill "$pid"
	wait "$pid"
	pid=
	[ ! -e s ] && [ ! -e ready ]
}

server_of() { # KEEPER
	tr -d ' ' <"/proc/$1/task/$1/children"
}

# A process that nobody has waited for is gone too.
wait_gone() {
	for try in $(seq 100); do
		grep -q '^State:.[^ZX]' "/proc/$1/status" 2>/dev/null || return 0
		sleep 0.1
	done
	echo "process $1 is still there"
	exit 1
}

truncate -s 96M source
dd if=/dev/urandom of=source bs=1M seek=7 count=11 conv=notrunc status=none
dd if=/dev/urandom of=source bs=1000 seek=70001 count=3 conv=notrunc status=none

# copy_through FORMAT CREATE-OPTION...: ours writes what libnbd sends; qemu reads it, then libnbd
copy_through() {
	format=$1
	shift
	rm -f image copy
	qemu-img create -q -f "$format" "$@" image 96M
	serve image --format "$format" --writable
	nbdcopy source "$uri"
	qemu-img compare -q -f raw -F raw source "$uri"
	qemu-img map --output=json -f raw "$uri" | grep -q '"data": false'
	stop
	qemu-img compare -q -f raw -F "$format" source image
	serve image --format "$format" --export name
	nbdinfo --list "$uri" | grep -q 'export="name"'
	nbdcopy "$uri" copy
	cmp source copy
	qemu-img convert -f raw -O raw "$uri" copy
	cmp source copy
	if qemu-io -f raw -c 'write 0 4k' "$uri" >/dev/null 2>&1; then exit 1; fi
	stop
	echo "ok copy through $format"
}

copy_through raw
copy_through vhdx -o subformat=dynamic,block_size=1M

# chain_through FORMAT: half of the source in the parent, all of it through the child
chain_through() {
	rm -f base."$1" child."$1" copy
	truncate -s 96M half
	dd if=source of=half bs=1M count=12 conv=notrunc status=none
	"$vhd" convert half base."$1"
	"$vhd" create child."$1" --parent base."$1"
	serve child."$1" --writable
	nbdcopy source "$uri"
	qemu-img compare -q -f raw -F raw source "$uri"
	stop
	serve base."$1"
	nbdcopy "$uri" copy
	cmp half copy
	stop
	"$vhd" check child."$1" >/dev/null
	echo "ok chain through $1"
}

chain_through vhd
chain_through vhdx

rm image
"$vhd" convert source image --to vhdx --block-size 1M
serve image --writable
qemu-io -f raw -c 'write -P 7 1M 64k' -c 'write -z 1M 4k' -c 'discard 8M 1M' -c 'read -P 0 1M 4k' \
	-c 'read -P 7 1052672 60k' -c 'write -P 9 -f 513 1000' -c 'read -P 9 513 1000' -c flush \
	"$uri" >out || { cat out; exit 1; }
if grep -q 'failed\|error' out; then exit 1; fi
stop
echo 'ok commands'

serve image
if command -v python3 >/dev/null; then
	python3 - <<-'END'
	import os, random, socket
	random.seed(1)
	for n in range(60):
	    s = socket.socket(socket.AF_UNIX)
	    s.connect("s")
	    try:
	        start = b"\0\0\0\3" + b"IHAVEOPT\0\0\0\7\0\0\0\6\0\0\0\0\0\0" if n % 2 else b""
	        s.sendall(start + random.randbytes(random.randrange(5000)))
	    except OSError:
	        pass
	    s.close()
	END
fi
nbdinfo --size "$uri" | grep -qx 100663296
stop
echo 'ok rubbish'

serve image --once
nbdinfo "$uri" >/dev/null
wait "$pid" && pid=
[ ! -e s ]
echo 'ok once'

serve image --writable
if "$vhd" serve image --socket t 2>/dev/null; then exit 1; fi
if "$vhd" serve image --socket s 2>/dev/null; then exit 1; fi
stop
echo 'ok in use'

serve image --writable
server=$(server_of "$pid")
if grep -q __asan_init "$vhd"; then
	echo 'skipped: no box with a sanitizer'
else
	grep -q '^Seccomp:.2$' "/proc/$server/status"
	grep -q '^NoNewPrivs:.1$' "/proc/$server/status"
fi
kill -HUP "$pid"
wait "$pid"
pid=
wait_gone "$server"
[ ! -e s ] && [ ! -e ready ]
echo 'ok box'

"$vhd" track image --enable >point
serve image --writable
qemu-io -f raw -c 'write -P 3 40M 1M' -c 'discard 7M 1M' "$uri" >out
stop
[ "$("$vhd" track image --since "$(cat point)" | tr -s ' \n' ' ')" = \
	'0x700000 0x100000 0x2800000 0x100000 ' ]
"$vhd" track image --disable
echo 'ok tracking'

serve image --writable
server=$(server_of "$pid")
stdbuf -oL qemu-io -f raw -c 'write -P 5 60M 8M' -c 'write -P 6 80M 1M' -c 'sleep 60000' "$uri" >out 2>&1 &
client=$!
for try in $(seq 100); do
	[ "$(grep -c '^wrote' out)" = 2 ] && break
	sleep 0.1
done
kill -9 "$pid"
wait "$pid" 2>/dev/null || :
pid=
wait_gone "$server"
kill "$client"
wait "$client" 2>/dev/null || :
client=
"$vhd" info image --json | grep -q '"dirty_log": false'
"$vhd" check image >/dev/null
[ -S s ] && rm ready
serve image # at the socket that was left
qemu-io -r -f raw -c 'read -P 5 60M 8M' -c 'read -P 6 80M 1M' "$uri" >out
if grep -q failed out; then exit 1; fi
stop
echo 'ok killed keeper'

serve image --writable 2>words
kill -9 "$(server_of "$pid")"
if wait "$pid"; then exit 1; fi
pid=
grep -qx 'vhd serve: the server was killed (signal 9); what was not flushed is lost' words
[ ! -e s ] && [ ! -e ready ]
"$vhd" check image >/dev/null
echo 'ok killed server'

echo other >ready
if "$vhd" serve nowhere --socket s --pid-file ready 2>words; then exit 1; fi
grep -qx 'vhd serve: cannot open "nowhere": No such file or directory' words
[ ! -e s ] && [ "$(cat ready)" = other ]
echo 'ok failure'
