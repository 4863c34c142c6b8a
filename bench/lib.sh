# SPDX-License-Identifier: MIT
#
# What the rows have in common, read by `run` inside the lab: starting each monitor with the same
# guest, the measured sessions, and arithmetic. $work is a folder in memory.

command_line='console=ttyS0 quiet panic=-1 reboot=t'
ram=512
rounds=3

# What QEMU's documentation recommends to switch on for guests that know Hyper-V.
enlightenments=hv-relaxed,hv-vapic,hv-vpindex,hv-runtime,hv-time,hv-synic,hv-stimer
enlightenments=$enlightenments,hv-stimer-direct,hv-frequencies,hv-reset,hv-tlbflush,hv-ipi

# The host's side, once: a file system in memory that knows O_DIRECT, and on it the disks.
prepare_host() {
	modprobe ext4
	modprobe brd rd_nr=1 rd_size=$((256 << 10))
	mke2fs -q -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 /dev/ram0
	mkdir -p "$work/disk"
	mount -t ext4 /dev/ram0 "$work/disk"
	tr '\0' x </dev/zero | head -c $((64 << 20)) >"$work/disk/disk.raw"
	"$work/vhd" convert "$work/disk/disk.raw" "$work/disk/disk.vhdx"
	# The kernel sends direct I/O the slow way where its page cache has something of the file.
	for disk in "$work/disk/disk.raw" "$work/disk/disk.vhdx"; do
		sync "$disk"
		dd if="$disk" iflag=nocache count=0 2>/dev/null
	done
}

# qemu MACHINE CPU DEVICE WORDS: the peers' common part.
qemu() {
	"$work/stopwatch" timeout -s KILL 30 qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot \
		-machine "$1" -accel kvm -cpu "$2" -smp 1 -m "$ram" -serial stdio \
		-kernel "$work/vmlinuz" -initrd "$work/initrd" -append "$command_line $4" \
		-drive "file=$work/disk/disk.raw,id=disk,if=none,format=raw,cache=none,aio=io_uring" \
		-device "$3,drive=disk"
}

ours() {
	"$work/stopwatch" timeout -s KILL 30 "$work/partita" run --no-reboot --cpus 1 --memory "${ram}M" \
		--kernel "$work/vmlinuz" --initrd "$work/initrd" --cmdline "$command_line $2" \
		--disk "$work/disk/$1,direct" $3
}

# By the management service, which is up and has a machine "boot" (rows/service_boot.sh).
by_service() {
	"$work/stopwatch" timeout -s KILL 30 sh -c \
		'"$0" vm start boot >/dev/null && exec "$0" vm console boot --read-only' "$work/partita"
}

# monitor NAME WORDS: runs the guest under monitor NAME with WORDS more on its command line; prints
# what the stopwatch says.
monitor() {
	case $1 in
	partita) ours disk.raw "$2" '' ;;
	partita-vhdx) ours disk.vhdx "$2" '' ;;
	partita-service) by_service ;;
	partita-locked) ours disk.raw "$2" --lock-memory ;;
	q35) qemu q35 "host,$enlightenments" virtio-blk-pci "$2" ;;
	microvm)
		qemu microvm,x-option-roms=off,pit=off,pic=off,rtc=on "host,$enlightenments" \
			virtio-blk-device "$2"
		;;
	esac </dev/null 2>"$work/console"
}

# watched NAME LABEL WORDS: the same, and tells the outside (for wall time) and the file LABEL. What
# came to its end is kept at /out: if this lab must be given up, the next one need not do it again.
watched() {
	! finished "$2" || return 0
	echo "# session $2"
	monitor "$1" "$3" | tee "$work/$2"
	if finished "$2"; then
		cp "$work/$2" /out/
	else
		echo "# $2 failed; the last lines of its console:"
		tail -n 20 "$work/console"
	fi
}

finished() {
	grep -qs 'partita-guest: done 0 ' "$work/$1"
}

# --- sessions: one guest per monitor that does all the loads, so that rows share it ---

loads='read-4k-qd1=1000 read-4k-qd32=4000 write-4k-qd1=1000 write-4k-qd32=4000
read-1m=32 write-1m=32 read-1m-huge=32 write-1m-huge=32'
loads="null=0 $loads $loads $loads idle=5"

# session NAME: leaves the stopwatch's lines in $work/session-NAME and its memory in
# $work/memory-NAME. The guest sleeps at the end, for the memory to be looked at.
session() {
	[ ! -e "$work/memory-$1" ] || return 0
	rm -f "$work/session-$1"
	watch_memory "$1" &
	watched "$1" "session-$1" "-- /tests/guest_io $(echo $loads) 'echo guest_io: asleep; sleep 3'"
	wait
	cp "$work/memory-$1" /out/
}

# Prints the KiB that process $1 has beyond the guest's memory: shares of shared pages count by
# their part (PSS), and the mappings that are the guest's memory do not count.
memory_of() {
	awk -v ram=$((ram << 10)) '
		/^[0-9a-f]+-[0-9a-f]+ / { guest = /guest-ram/ }
		/^Size:/ { guest = guest || $2 == ram }
		/^Pss:/ && !guest { sum += $2 }
		END { print sum + 0 }' "/proc/$1/smaps"
}

# Only seconds later: the guest must be asleep, so that this costs the loads no time.
watch_memory() {
	file=$work/session-$1
	tries=0
	until grep -q 'guest_io: asleep' "$file" 2>/dev/null; do
		tries=$((tries + 1))
		[ $tries -lt 600 ] || return 0
		sleep 0.5
	done
	for program in partita-worker partita qemu-system-x86_64; do
		for pid in $(busybox pidof "$program"); do
			echo "$program $(memory_of "$pid")"
		done
	done >"$work/memory-$1.new"
	mv "$work/memory-$1.new" "$work/memory-$1"
}

# --- reading them ---

# Prints the middle one of the numbers on stdin: each load is done three times.
median() {
	sort -g | awk '{ v[NR] = $1 } END { if (NR) print v[int((NR + 1) / 2)] }'
}

# rate SESSION LOAD: operations a second, by the guest's clock.
rate() {
	awk -v load="$2" '$7 == "guest_io:" && $8 == "end" && $9 == load { print $10 / $11 }' \
		"$work/session-$1" | median
}

# count SESSION LOAD COLUMN: by how much a counter of the stopwatch (3 = exits, 4 = port I/O, 5 =
# MMIO, 6 = halts) grew, per operation, without what the two lines on the console cost.
count() {
	awk -v load="$2" -v c="$3" '
		$7 != "guest_io:" { next }
		$8 == "begin" { at = $c }
		$8 == "end" && $9 == "null" { console = $c - at }
		$8 == "end" && $9 == load { print ($c - at - console) / $10 }' \
		"$work/session-$1" | median
}

# best higher|lower NAME VALUE...: prints the name and the value of the best.
best() {
	want=$1
	shift
	printf '%s %s\n' "$@" | awk -v want="$want" 'NF == 2 && (name == "" ||
		(want == "higher" ? $2 > value : $2 < value)) { name = $1; value = $2 }
		END { print name, value }'
}

# result ID OURS PEER_NAME PEER [OUR_LABEL PEER_LABEL LINE]: hands a result out. The labels are what
# `watched` was told; with LINE ("init" or a load) the outside adds wall times.
result() {
	echo "# result $*"
}
