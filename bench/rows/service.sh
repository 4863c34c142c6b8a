# SPDX-License-Identifier: MIT
# where: host
# row: service-list-cli        | ms  | ratio <= | 0.5   | - | `partita vm list` of 1,000 machines; the peer is `virsh list --all` of 1,000 domains, of the QEMU driver or the test driver, whichever is faster
# row: service-list-cli-time   | ms  | ours <=  | 50    | - | its time alone
# row: service-list-api        | ms  | ours <=  | 10    | - | one request for all of 1,000 machines, settings and status, on the Unix socket
# row: service-list-api-fields | ms  | ours <=  | 10    | - | the same with ?fields=id,name,state
# row: service-define          | s   | ratio <= | 1     | - | 1,000 machines made, durable, by POST in one curl; the peer is `define` 1,000 times in one virsh, QEMU driver
# row: service-memory          | KiB | ours <=  | 15360 | - | resident memory of partitad without machines; beside it libvirtd's
# row: service-memory-1000     | KiB | ours <=  | 40960 | - | with 1,000, after they were listed
# row: service-restart-1000    | ms  | ours <=  | 1000  | - | partitad with 1,000 machines, start to its first answer; beside it libvirtd's, to the end of virsh's `version`
# row: service-start           | ms  | -        | -     | - | POST start to running on engine fake, all of it; beside it a bare worker until its control socket is there
#
# The peer is Debian's libvirt 9.0. Its libvirtd runs as it is, in a mount namespace where /run, /var
# and its configuration are folders of $work: this needs root, but no KVM, since nothing is started.
# Both sides begin anew in each of five turns, with the same kernel and one disk a machine; the
# middle one counts. Clients' own start is part of what is measured, but for the API's rows.

turns=5
machines=1000
partita=$build/src/cli/partita
kernel=$build/tests/guests/guest.elf
service= libvirtd= bare=

# In /tmp are only sockets, whose paths must be short.
sockets=$(mktemp -d /tmp/partita-bench-XXXXXX)
XDG_RUNTIME_DIR=$sockets XDG_STATE_HOME=$work/state HOME=$work
export XDG_RUNTIME_DIR XDG_STATE_HOME HOME
unset PARTITA_HOST || :
socket=$sockets/partita/partitad.sock
virsh_socket="qemu:///system?socket=$work/libvirt/run/libvirt/libvirt-sock"

# ended PID: waits until it is gone; a zombie has no program any more.
ended() {
	while [ -e "/proc/$1/exe" ]; do
		sleep 0.01
	done
}

end_service() {
	[ -n "$service" ] || return 0
	"$partita" host down --stop-machines >/dev/null
	service=
}

end_libvirtd() {
	[ -n "$libvirtd" ] || return 0
	kill "$libvirtd"
	ended "$libvirtd"
	libvirtd=
}

clean_up() {
	[ -z "$bare" ] || kill "$bare" 2>/dev/null || :
	end_service || :
	end_libvirtd || :
	rm -rf "$work" "$sockets"
}
trap clean_up EXIT

# --- what both sides are told ---

write_machines() {
	for i in $(seq $machines); do
		name=$(printf 'machine-%04d' "$i")
		cat >&3 <<-END
			unix-socket = "$socket"
			url = "http://localhost/api/v1/vms"
			header = "Content-Type: application/json"
			data = "@$work/define/$name.json"
			output = "/dev/null"
			next
		END
		cat >"$work/define/$name.json" <<-END
			{"settings": {"name": "$name", "engine": "fake", "processors": {"count": 1},
			"memory": {"startup": 64}, "boot": {"kernel": "$kernel"},
			"scsi_controllers": [{"drives": [{"kind": "disk", "location": 0,
			"path": "$work/disk.raw"}]}], "com_ports": [{"kind": "console"}],
			"automatic": {"stop": "turn-off"}}}
		END
		cat >"$work/define/$name.xml" <<-END
			<domain type='qemu'><name>$name</name><memory unit='MiB'>64</memory>
			<vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type>
			<kernel>$kernel</kernel></os><devices><disk type='file' device='disk'>
			<driver name='qemu' type='raw'/><source file='$work/disk.raw'/>
			<target dev='vda' bus='virtio'/></disk><console type='pty'/></devices></domain>
		END
		echo "define $work/define/$name.xml" >&4
		sed "s/type='qemu'/type='test'/" "$work/define/$name.xml" >&5
	done
}

write_all() {
	mkdir "$work/define"
	truncate -s 64M "$work/disk.raw"
	echo '<node>' >"$work/test.xml"
	write_machines 3>"$work/curl" 4>"$work/virsh" 5>>"$work/test.xml"
	echo '</node>' >>"$work/test.xml"
	sed -i '$d' "$work/curl" # nothing comes after the last "next"
}

# --- the two services ---

start_service() {
	"$partita" host up --json >"$work/up"
	service=$(sed -n 's/^ *"pid": *\([0-9]*\).*/\1/p' "$work/up")
}

# libvirtd looks for its user, which its full package would make.
prepare_libvirtd() {
	rm -rf "$work/libvirt"
	mkdir -p "$work/libvirt/etc" "$work/libvirt/run" "$work/libvirt/var/lib" \
		"$work/libvirt/var/cache" "$work/libvirt/var/log"
	for file in passwd group; do
		{ cat /etc/$file && echo 'libvirt-qemu:x:64055:64055::/:/bin/false'; } \
			>"$work/libvirt/$file"
	done
	sed -i '$s/.*/libvirt-qemu:x:64055:/' "$work/libvirt/group"
	printf '%s = "none"\n' auth_unix_ro auth_unix_rw >"$work/libvirt/libvirtd.conf"
	printf '%s = "%s"\n' user root group root stdio_handler file >"$work/libvirt/etc/qemu.conf"
	cat >"$work/libvirt/begin" <<-END
		cd "$work/libvirt"
		mount --bind passwd /etc/passwd
		mount --bind group /etc/group
		mount --bind etc /etc/libvirt
		mount --bind var /var
		mount --bind run /run
		exec libvirtd --config "$work/libvirt/libvirtd.conf"
	END
}

start_libvirtd() {
	unshare --mount sh -eu "$work/libvirt/begin" >"$work/libvirt/log" 2>&1 &
	libvirtd=$!
}

# "version" is answered when all domains are read.
wait_for_libvirtd() {
	until virsh -q -c "$virsh_socket" version >/dev/null 2>&1; do
		[ -e "/proc/$libvirtd/exe" ] || { tail "$work/libvirt/log"; exit 1; }
	done
}

# --- measuring ---

# taken NAME COMMAND...: adds its milliseconds to $work/NAME.
taken() {
	name=$1
	shift
	begun=$(date +%s%N)
	"$@" >"$work/output"
	echo $((($(date +%s%N) - begun) / 1000)) | awk '{ print $1 / 1000 }' >>"$work/$name"
}

middle() {
	median <"$work/$1"
}

resident() {
	sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$2/status" >>"$work/$1"
}

# asked NAME METHOD PATH: adds the milliseconds of the request alone.
asked() {
	curl -s -f -o "$work/output" -w '%{time_total}\n' -X "$2" --unix-socket "$socket" \
		"http://localhost/api/v1/$3" | awk '{ print $1 * 1000 }' >>"$work/$1"
}

# There must be so many, or what is measured is something else.
check_count() {
	count=$(grep -c 'machine-[0-9]' "$work/output")
	[ "$count" = $machines ] || { echo "# failed: $count machines listed" && exit 1; }
}

virsh_define() {
	virsh -q -c "$virsh_socket" <"$work/virsh"
}

define() {
	taken ours-define curl -s -f --config "$work/curl"
	# (QEMU's abilities are looked at when they are first needed)
	virsh -q -c "$virsh_socket" domcapabilities --virttype qemu --machine q35 >/dev/null
	taken virsh-define virsh_define
}

list() {
	for i in 1 2 3; do
		taken ours-list "$partita" vm list
		check_count
		taken qemu-list virsh -c "$virsh_socket" list --all
		check_count
		taken test-list virsh -c "test://$work/test.xml" list --all
		check_count
		asked ours-api GET vms
		asked ours-fields GET 'vms?fields=id,name,state'
	done
}

until_answer() {
	until curl -s -f -o "$work/output" --unix-socket "$socket" http://localhost/api/v1/host; do
		[ -e "/proc/$service/exe" ] || exit 1
	done
}

started_again() {
	"$build/src/rest/partitad" --user --socket "$socket" --state "$work/state/partita" \
		--run "$sockets/partita" >>"$work/log" 2>&1 &
	service=$!
	until_answer
}

libvirtd_again() {
	start_libvirtd
	wait_for_libvirtd
}

restart() {
	"$partita" host down >/dev/null
	taken ours-restart started_again
	end_libvirtd
	taken virsh-restart libvirtd_again
}

bare_start() {
	"$build/src/worker/partita-worker" --description "$work/bare.json" \
		>>"$work/log" 2>&1 &
	bare=$!
	until [ -S "$sockets/bare" ]; do
		[ -e "/proc/$bare/exe" ] || { cat "$work/log" >&2 && exit 1; }
	done
}

start() {
	asked ours-start POST 'vms/machine-0001/start?wait=10'
	grep -q '"completed"' "$work/output" || { cat "$work/output" && exit 1; }
	"$partita" vm stop machine-0001 --turn-off >/dev/null 2>&1
	"$partita" run --engine fake --memory 64M --kernel "$kernel" --disk "$work/disk.raw" \
		--serial none --show-description | sed \
		"1s|{|{ \"control\": { \"path\": \"$sockets/bare\" },|" >"$work/bare.json"
	taken bare-start bare_start
	kill "$bare"
	wait "$bare" || :
	bare=
	rm -f "$sockets/bare"
}

turn() {
	rm -rf "$work/state"
	mkdir "$work/state"
	start_service
	prepare_libvirtd
	libvirtd_again
	resident ours-memory "$service"
	resident virsh-memory "$libvirtd"
	define
	list
	resident ours-memory-1000 "$service"
	resident virsh-memory-1000 "$libvirtd"
	restart
	start
	end_service
	end_libvirtd
}

write_all
for turn in $(seq $turns); do
	turn
done

list_peer=$(best lower libvirt-qemu "$(middle qemu-list)" libvirt-test "$(middle test-list)")
result service-list-cli "$(middle ours-list)" $list_peer
result service-list-cli-time "$(middle ours-list)" $list_peer
result service-list-api "$(middle ours-api)" - -
result service-list-api-fields "$(middle ours-fields)" - -
result service-define "$(middle ours-define | awk '{ print $1 / 1000 }')" libvirt-qemu \
	"$(middle virsh-define | awk '{ print $1 / 1000 }')"
result service-memory "$(middle ours-memory)" libvirtd "$(middle virsh-memory)"
result service-memory-1000 "$(middle ours-memory-1000)" libvirtd "$(middle virsh-memory-1000)"
result service-restart-1000 "$(middle ours-restart)" libvirtd "$(middle virsh-restart)"
result service-start "$(middle ours-start)" bare-worker "$(middle bare-start)"
