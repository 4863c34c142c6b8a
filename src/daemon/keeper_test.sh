#!/bin/sh
# SPDX-License-Identifier: MIT
#
# keeper_test.sh KEEPER: what partita-keeper writes down, of commands in a worker's place.
set -eu

keeper=$(realpath "$1")
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' HUP INT TERM

fail() {
	echo "$*"
	exit 1
}

# A keeper of `sh -c $1` in an empty run folder, in the background; further arguments are its options.
keep() {
	script=$1
	shift
	rm -rf "$tmp/run"
	mkdir "$tmp/run"
	"$keeper" "$@" -- /bin/sh -c "$script" 3<"$tmp/run" 4>"$tmp/run/lock" &
	pid=$!
}

# It ended with status $1, and end.json has $2.
ended() {
	status=0
	wait "$pid" || status=$?
	[ "$status" = "$1" ] || fail "the keeper's status is $status, not $1"
	grep -qF -- "$2" "$tmp/run/end.json" || fail "$(cat "$tmp/run/end.json"): no $2"
}

record_of() {
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		[ ! -e "$tmp/run/worker.json" ] || return 0
		sleep 0.2
	done
	fail 'there is no worker.json'
}

"$keeper" --help | grep -q '^usage: ' || fail 'there is no help'
"$keeper" --version | grep -q '^partita-keeper ' || fail 'there is no version'
for wrong in '' '--files' '--files x -- /bin/true' '--files -1 -- /bin/true' '--uid 5' '--no'; do
	status=0
	# not quoted: several words
	"$keeper" $wrong 2>"$tmp/said" || status=$?
	[ "$status" = 2 ] || fail "'$wrong' is no wrong usage"
done

keep 'exit 7'
ended 0 '"status":7'
keep 'kill -9 $$'
ended 0 '"signal":9,"core":false'

# signals: passed on, and one that kills
keep 'trap "exit 4" TERM; while :; do sleep 0.1; done'
record_of
sleep 0.5
kill -INT "$pid"
ended 0 '"status":4'
keep 'trap "" TERM; while :; do sleep 0.1; done'
record_of
kill -QUIT "$pid"
ended 0 '"signal":9'

# what it says is JSON, whatever it says
keep 'printf "a \"\\\\ \001\177 \303\244 \303( \355\240\200 \364\220\200\200 \300\200\n\n" >&2'
ended 0 '"words":"a \"\\  ? ä ?( ??? ???? ??"'
keep 'i=0; while [ $i -lt 300 ]; do echo line $i >&2; i=$((i+1)); done'
ended 0 'line 298\nline 299"'
! grep -q 'line 10\\' "$tmp/run/end.json" || fail 'words have no limit'
[ "$(wc -l <"$tmp/run/log")" = 300 ] || fail 'the log is not whole'

# what others hold open does not keep it
keep 'sleep 30 & echo $! >"'"$tmp"'/sleeper"; exit 0'
ended 0 '"status":0'
kill "$(cat "$tmp/sleeper")"

# nobody can find a worker that is not written down: it does not begin
rm -rf "$tmp/run"
mkdir "$tmp/run"
mkdir "$tmp/run/worker.json"
"$keeper" -- /bin/sh -c "touch $tmp/begun" 3<"$tmp/run" 4>"$tmp/run/lock" &
pid=$!
ended 0 '"failed":"cannot write worker.json'
[ ! -e "$tmp/begun" ] || fail 'a worker began that was not written down'
rm -rf "$tmp/run"
mkdir "$tmp/run" "$tmp/run/worker.json" "$tmp/run/end.json"
status=0
"$keeper" -- /bin/true 3<"$tmp/run" 4>"$tmp/run/lock" || status=$?
[ "$status" = 1 ] || fail "status $status when nothing can be written"

# it is not there
rm -rf "$tmp/run"
mkdir "$tmp/run"
"$keeper" -- "$tmp/none" 3<"$tmp/run" 4>"$tmp/run/lock"
grep -q '"failed":"cannot run .*No such file' "$tmp/run/end.json" || fail 'a missing worker is not told'

# as another user, when this is root
if [ "$(id -u)" = 0 ]; then
	rm -rf "$tmp/run"
	mkdir "$tmp/run"
	chmod 777 "$tmp/run"
	"$keeper" --uid 65534 --gid 65533 --group 65532 -- /bin/sh -c 'echo "$(id -u) $(id -G)" >&2' \
		3<"$tmp/run" 4>"$tmp/run/lock"
	grep -q '"words":"65534 65533 65532"' "$tmp/run/end.json" || fail "$(cat "$tmp/run/end.json")"
fi
