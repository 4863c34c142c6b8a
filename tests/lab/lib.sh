# SPDX-License-Identifier: MIT
#
# What the tests in the lab share: to start guests, to wait for what they say, to command their
# workers, to check images. A test sources this, with its own folder in $here:
#
#	here=$(dirname "$0")
#	. "$here/lib.sh"
#
# Files of a guest NAME are in $TMPDIR: NAME.log, what its console said; NAME.err, what `partita run`
# said; NAME.control, its control socket. When a test fails, the ends of these are shown.
set -eu

build=${PARTITA_BUILD:-$(cd "$here/../.." && pwd)/build}
cache=${PARTITA_CACHE:-$(cd "$here/../.." && pwd)/build/cache}
partita=$build/src/cli/partita
vhd=$build/src/vhdtool/vhd
worker=$build/src/worker/partita-worker
talk=$build/tests/lab/talk
pattern=$build/tests/lab/pattern
images=$build/lab-images
TMPDIR=${TMPDIR:-/tmp}
PATH=$PATH:/usr/sbin:/sbin

# The guest kernel: a series, and the file. Its uncompressed form (PVH) starts sooner here, where
# processors are emulated; tests of booting use the bzImage.
series=6.1
memory=256M
running=

[ -e "$images/initrd-6.1" ] || {
	echo "$images is missing: run tests/lab/prepare outside the lab (tools/check lab does)"
	exit 1
}

now() {
	cut -d ' ' -f 1 /proc/uptime
}

# A test may say otherwise what to undo at its end.
cleanup() {
	:
}

at_end() {
	status=$?
	trap - EXIT
	cleanup
	for pid in $running; do
		kill "$pid" 2>/dev/null || :
	done
	if [ "$status" != 0 ]; then
		for file in "$TMPDIR"/*.err "$TMPDIR"/*.log; do
			[ -s "$file" ] || continue
			echo "--- the end of ${file##*/}:"
			tail -n 12 "$file" | tr -d '\r' | cut -c 1-200
		done
		[ ! -s "$TMPDIR/failure" ] || cat "$TMPDIR/failure"
	fi
	wait
	exit "$status"
}
trap at_end EXIT
trap 'exit 143' TERM

# The reason comes last, after the logs.
fail() {
	echo "FAILED: $*" >"$TMPDIR/failure"
	exit 1
}

step() {
	echo "$(now) $*"
}

# Fails unless a line of file $1 matches the extended regular expression $2.
expect() {
	grep -q -E -e "$2" "$1" || {
		cut -c 1-200 "$1" | tail -n 20
		fail "${3:-in ${1##*/} there is no line like: $2}"
	}
}

expect_no() {
	! grep -E -e "$2" "$1" || fail "in ${1##*/} there is a line like: $2"
}

# guest_start NAME CMDLINE [OPTION of partita run...]: in the background; $guest is its process.
guest_start() {
	guest_name=$1
	guest_cmdline=$2
	shift 2
	rm -f "$TMPDIR/$guest_name.log" "$TMPDIR/$guest_name.err"
	: >"$TMPDIR/$guest_name.log"
	"$partita" run --name "$guest_name" --memory "$memory" \
		--kernel "${kernel:-$cache/kernels/$series-cloud-amd64/vmlinux}" \
		--initrd "${initrd:-$images/initrd-$series}" \
		--control "$TMPDIR/$guest_name.control" "$@" \
		--cmdline "console=ttyS0 quiet panic=-1 $guest_cmdline" \
		</dev/null >>"$TMPDIR/$guest_name.log" 2>"$TMPDIR/$guest_name.err" &
	guest=$!
	running="$running $guest"
}

# guest_says TEXT... [seconds:N]: waits until the guest has said all of that, in this order.
guest_says() {
	for text in "$@"; do
		shift
		case $text in
		seconds:*) set -- "$@" "$text" ;;
		*) set -- "$@" "wait:$text" ;;
		esac
	done
	"$talk" --quiet --pid "$guest" "$TMPDIR/$guest_name.log" "$@" 2>"$TMPDIR/talk.said" ||
		fail "guest $guest_name: $(cat "$TMPDIR/talk.said")"
}

# guest_end [STATUS]: waits for its end and wants this exit status of `partita run`.
guest_end() {
	status=0
	wait "$guest" || status=$?
	running=$(echo " $running " | sed "s/ $guest / /")
	[ "$status" = "${1:-0}" ] ||
		fail "guest $guest_name: partita run ended with status $status, not ${1:-0}"
}

# guest_run NAME CMDLINE [OPTION...]: from start to end. What the command line asked must go well.
guest_run() {
	guest_begin=$(now)
	guest_start "$@"
	guest_says 'seconds:60' 'partita-guest: done '
	guest_end
	log=$TMPDIR/$guest_name.log
	expect "$log" '^partita-guest: done 0 ' "guest $guest_name: what it ran failed"
	echo "$guest_begin $(now) $guest_name" |
		awk '{ printf "# guest %s: %.1f s\n", $3, $2 - $1 }'
}

# The worker's own process.
worker_pid() {
	tr -d " " <"/proc/$guest/task/$guest/children"
}

# command NAME...: over the control socket; its answers are in $TMPDIR/answer.
command_worker() {
	for command in "$@"; do
		shift
		set -- "$@" "send:{\"id\":7,\"command\":\"$command\"}" 'wait:"id":7' 'wait:}'
	done
	: >"$TMPDIR/answer"
	"$talk" --log "$TMPDIR/answer" "$TMPDIR/$guest_name.control" seconds:20 "$@" \
		2>"$TMPDIR/talk.said" || fail "control socket: $(cat "$TMPDIR/talk.said")"
}

# The last write that the guest reported as safe on the disk.
last_synced() {
	tr -d '\r' <"$TMPDIR/$guest_name.log" | sed -n 's/^job 0 synced //p' | tail -n 1
}

# check_image FILE [KINDS]: our own checker finds nothing of these kinds (all), and QEMU's nothing.
check_image() {
	"$vhd" check "$1" >"$TMPDIR/check" 2>&1 || {
		cat "$TMPDIR/check"
		fail "vhd check found damage in ${1##*/}"
	}
	expect_no "$TMPDIR/check" "^(${2:-waste|damage}):"
	case $1 in
	*-4k.vhdx) ;; # QEMU knows only sectors of 512 bytes
	*.vhdx) qemu-img check -q -f vhdx "$1" >"$TMPDIR/check" 2>&1 || {
		cat "$TMPDIR/check"
		fail "qemu-img check found errors in ${1##*/}"
	} ;;
	esac
}

# verify_image FILE OPTION...: the writes of `pattern` are in the image, as seen through libvhd.
verify_image() {
	image=$1
	shift
	case $image in
	*.vhdx)
		"$vhd" convert "$image" "$image.raw" --force
		image=$image.raw
		;;
	esac
	"$pattern" verify "$image" --cached "$@" || fail "what is in ${image##*/} is not what was written"
	case $image in
	*.vhdx.raw) rm "$image" ;;
	esac
}

# Bytes that a file takes on its file system.
taken() {
	echo $(($(stat -c %b "$1") * 512))
}
