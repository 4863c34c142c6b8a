# SPDX-License-Identifier: MIT
#
# What tests of dynamic memory share, after lib.sh: a guest that does what lines on its console ask
# (tests/images/scripts/memory), and its worker's figures.

log=
converse() {
	"$talk" --log "$log" --pid "$guest" "$TMPDIR/console" seconds:90 "$@" 2>"$TMPDIR/talk.said" ||
		fail "guest: $(cat "$TMPDIR/talk.said")"
}

# ask JSON: a command to the worker; its answer is in $TMPDIR/answer.
ask() {
	: >"$TMPDIR/answer"
	"$talk" --log "$TMPDIR/answer" "$TMPDIR/$guest_name.control" seconds:20 \
		"send:{\"id\":7,$1}" 'wait:"id":7' 'wait:}
' 2>"$TMPDIR/talk.said" || fail "control socket: $(cat "$TMPDIR/talk.said")"
	grep '"id":7' "$TMPDIR/answer" >"$TMPDIR/answer.line" || fail 'no answer'
}

# value NAME: from the worker, now.
value() {
	ask '"command":"memory-query"'
	sed -n "s/.*\"$1\": *\"\{0,1\}\([a-z0-9]*\).*/\1/p" "$TMPDIR/answer.line"
}

# until_value NAME TEST NUMBER [SECONDS]
until_value() {
	tries=0
	until [ "$(value "$1")" "$2" "$3" ]; do
		tries=$((tries + 1))
		[ $tries -lt "${4:-60}" ] ||
			fail "$1 does not become $2 $3: $(cat "$TMPDIR/answer.line")"
		sleep 1
	done
}

target() {
	ask "\"command\":\"memory-set\",\"target\":$1"
	grep -q '"ok": *true' "$TMPDIR/answer.line" ||
		fail "memory-set: $(cat "$TMPDIR/answer.line")"
}

# MiB of the worker in the host's memory
resident() {
	awk '/^Rss:/ { print int($2 / 1024) }' "/proc/$(worker_pid)/smaps_rollup"
}

facts() {
	converse send:facts 'wait:memory: told'
	total=$(tr -d '\r' <"$log" | sed -n 's/^memory: total \([0-9]*\) .*/\1/p' | tail -n 1)
	expect_no "$log" 'memory: complaint'
}

# memory_guest NAME OPTION...: starts a guest of $series, until its driver listens.
memory_guest() {
	initrd=$images/initrd-memory-$series
	log=$TMPDIR/$1.log
	name=$1
	shift
	guest_start "$name" 'memhp_default_state=online test=memory' \
		--serial "socket:$TMPDIR/console" "$@"
	converse 'wait:memory: ready'
}
