# SPDX-License-Identifier: MIT
# row: save      | s   | ratio <= | 1.0 | 0.5 | a running guest of 1 GiB into a file, until that is durable
# row: restore   | s   | ratio <= | 1.0 | 0.5 | start of the monitor to the guest's next line
# row: save-size | MiB | ratio <= | 1.0 | 0.9 | the file
#
# The guest has filled 256 MiB of its 1 GiB, which do not compress and are no zeros, and writes a
# line each 20 ms. Ours: `partita save`, `partita run --state`. The peer: QEMU's `migrate` into
# a file without a limit of speed and a sync, and `-incoming` from there. Files are in memory. The
# median of the rounds, in turns.

talk=$build/tests/lab/talk
save_words='-- head -c 268435456 /dev/urandom >/fill; echo filled; while :; do echo tick; sleep 0.02; done'

clock() {
	date +%s.%N
}

# since BEGIN
since() {
	echo "$1 $(clock)" | awk '{ printf "%.3f\n", $2 - $1 }'
}

# says FILE TEXT: waits until the console in FILE has a line like that.
says() {
	"$talk" --quiet "$1" seconds:120 "wait:$2"
}

save_ours() {
	"$work/partita" run --no-reboot --cpus 1 --memory 1024M --kernel "$work/vmlinuz" \
		--initrd "$work/initrd" --cmdline "$command_line $save_words" \
		--control "$work/save.control" "$@" </dev/null >"$work/save.console" 2>&1 &
	monitor=$!
}

save_qemu() {
	qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -machine q35 \
		-accel kvm -cpu "host,$enlightenments" -smp 1 -m 1024 -serial stdio \
		-monitor "unix:$work/save.control,server=on,wait=off" \
		-kernel "$work/vmlinuz" -initrd "$work/initrd" -append "$command_line $save_words" \
		"$@" </dev/null >"$work/save.console" 2>&1 &
	monitor=$!
}

# qemu_says COMMAND...: on its monitor, each until the next prompt.
qemu_says() {
	for command in "$@"; do
		shift
		set -- "$@" "send:$command" 'wait:(qemu)'
	done
	"$talk" --quiet "$work/save.control" seconds:120 'wait:(qemu)' "$@"
}

# save_round NAME NUMBER
save_round() {
	rm -f "$work/state" "$work/save.control"
	echo "# session save-$1-$2"
	save_$1
	says "$work/save.console" tick
	[ "$1" = ours ] || qemu_says 'migrate_set_parameter max-bandwidth 1T'
	begin=$(clock)
	case $1 in
	ours) "$work/partita" save --control "$work/save.control" "$work/state" ;;
	qemu)
		qemu_says "migrate \"exec:cat >$work/state\""
		sync "$work/state"
		;;
	esac
	since "$begin" >>"$work/times-save-$1"
	[ "$1" = ours ] || qemu_says quit || :
	wait "$monitor" || :
	du -m --apparent-size "$work/state" | cut -f 1 >"$work/size-$1"
	rm -f "$work/save.control"
	begin=$(clock)
	case $1 in
	ours) save_ours --state "$work/state" ;;
	qemu) save_qemu -incoming "exec:cat $work/state" ;;
	esac
	says "$work/save.console" tick
	since "$begin" >>"$work/times-restore-$1"
	kill "$monitor"
	wait "$monitor" || :
}

for round in $(seq $rounds); do
	for name in ours qemu; do
		save_round $name "$round"
	done
done
result save "$(median <"$work/times-save-ours")" q35 "$(median <"$work/times-save-qemu")"
result restore "$(median <"$work/times-restore-ours")" q35 "$(median <"$work/times-restore-qemu")"
result save-size "$(cat "$work/size-ours")" q35 "$(cat "$work/size-qemu")"
