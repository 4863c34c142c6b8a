# SPDX-License-Identifier: MIT
# row: balloon-out  | s | ratio <= | 1.0 | 0.5 | 1 GiB taken from a guest of 1.5 GiB that used all of it, until the host has it
# row: balloon-back | s | ratio <= | 1.0 | 0.5 | and given back, until the guest has it
#
# The peer is QEMU's virtio-balloon: its hv-balloon came with 8.2, and Debian 12 has 7.2. Both are
# asked for the new size, and then asked for the present one until it is that. The guest has filled
# its memory before, and let go. The median of the rounds, in turns.

talk=$build/tests/lab/talk
balloon_words='-- echo 0 >/sys/module/hv_balloon/parameters/pressure_report_delay;
mkdir /fill; mount -t tmpfs -o size=1200M fill /fill;
dd if=/dev/zero of=/fill/it bs=1M count=1100; rm /fill/it; echo filled; sleep 1000'
balloon_words=$(echo $balloon_words)

balloon_clock() {
	date +%s.%N
}

balloon_since() {
	echo "$1 $(balloon_clock)" | awk '{ printf "%.3f\n", $2 - $1 }'
}

balloon_start_ours() {
	"$work/partita" run --no-reboot --cpus 1 --memory 1536M --kernel "$work/vmlinuz" \
		--initrd "$work/initrd-balloon" --cmdline "$command_line $balloon_words" \
		--control "$work/balloon.control" </dev/null >"$work/balloon.console" 2>&1 &
	monitor=$!
}

balloon_start_qemu() {
	qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -machine q35 \
		-accel kvm -cpu "host,$enlightenments" -smp 1 -m 1536 -serial stdio \
		-device virtio-balloon-pci \
		-monitor "unix:$work/balloon.control,server=on,wait=off" -kernel "$work/vmlinuz" \
		-initrd "$work/initrd-balloon" -append "$command_line $balloon_words" \
		</dev/null >"$work/balloon.console" 2>&1 &
	monitor=$!
}

# balloon_say NAME LINE TEXT: sends it, and waits for the answer with TEXT; which is printed.
balloon_say() {
	rm -f "$work/balloon.answer"
	case $1 in
	ours) set -- "send:$2" "wait:$3" 'wait:}
' ;;
	qemu) set -- 'wait:(qemu)' "send:$2" "wait:$3" 'wait:(qemu)' ;;
	esac
	"$talk" --log "$work/balloon.answer" "$work/balloon.control" seconds:60 "$@" &&
		cat "$work/balloon.answer"
}

# balloon_to NAME MIB
balloon_to() {
	begin=$(balloon_clock)
	case $1 in
	ours) balloon_say ours "{\"id\":1,\"command\":\"memory-set\",\"target\":$2}" '"id":1' ;;
	qemu) balloon_say qemu "balloon $2" "balloon $2" ;;
	esac >/dev/null
	tries=0
	while :; do
		case $1 in
		ours)
			balloon_say ours '{"id":2,"command":"memory-query"}' '"id":2' |
				grep -q "\"assigned\":$2[,}]" && break
			;;
		qemu) balloon_say qemu 'info balloon' 'actual=' | grep -q "actual=$2\$\|actual=$2[^0-9]" && break ;;
		esac
		tries=$((tries + 1))
		[ $tries -lt 1000 ] || { echo "# balloon: $1 does not come to $2 MiB"; return 1; }
	done
	balloon_since "$begin"
}

balloon_rss() {
	pid=$(busybox pidof "$1" | cut -d ' ' -f 1)
	awk '/^Rss:/ { print int($2 / 1024) }' "/proc/$pid/smaps_rollup"
}

# balloon_round NAME PROGRAM NUMBER
balloon_round() {
	rm -f "$work/balloon.control"
	echo "# session balloon-$1-$3"
	balloon_start_$1
	"$talk" --quiet "$work/balloon.console" seconds:120 wait:filled
	before=$(balloon_rss "$2")
	balloon_to "$1" 512 >>"$work/times-balloon-out-$1"
	echo "# balloon-$1: $before MiB resident before, $(balloon_rss "$2") after"
	balloon_to "$1" 1536 >>"$work/times-balloon-back-$1"
	kill "$monitor"
	wait "$monitor" || :
}

for round in $(seq $rounds); do
	balloon_round ours partita-worker "$round"
	balloon_round qemu qemu-system-x86_64 "$round"
done
for way in out back; do
	result balloon-$way "$(median <"$work/times-balloon-$way-ours")" q35 \
		"$(median <"$work/times-balloon-$way-qemu")"
done
