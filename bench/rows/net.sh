# SPDX-License-Identifier: MIT
# row: net-guest-1   | MiB/s | ratio >= | 1 | 1.2 | TCP from guest to guest, one stream
# row: net-guest-4   | MiB/s | ratio >= | 1 | 1.2 | the same, four streams
# row: net-to-host-1 | MiB/s | ratio >= | 1 | 1.2 | TCP from guest to host, one stream
# row: net-to-host-4 | MiB/s | ratio >= | 1 | 1.2 | the same, four streams
# row: net-of-host-1 | MiB/s | ratio >= | 1 | 1.2 | TCP from host to guest, one stream
# row: net-of-host-4 | MiB/s | ratio >= | 1 | 1.2 | the same, four streams
# row: net-small     | 1/s   | ratio >= | 0.9 | 1.1 | UDP frames of 64 bytes from guest to guest that arrive
# row: net-echo      | 1/s   | ratio >= | 0.9 | 1.1 | UDP round trips from guest to guest, one at a time
#
# Two guests and the host on one network; tests/lab/traffic.c is the load, in one of the guests, and
# compares what arrives. Ours: netvsp and the switch library in a process (tests/lab/wire.c) with a
# tap for the host. Peers: virtio-net on PCI (q35), a tap each, and a Linux bridge; once served by
# QEMU itself and once by the host's kernel (vhost). There is one processor for all of it.

net_loads='send 10.8.0.2 5001 1 16;send 10.8.0.2 5001 4 16;send 10.8.0.9 5001 1 16
send 10.8.0.9 5001 4 16;get 10.8.0.9 5001 1 16;get 10.8.0.9 5001 4 16
flood 10.8.0.2 5001 3000;echo 10.8.0.2 5001 300'

# net_words ADDRESS COMMAND: what a guest runs.
net_words() {
	echo "-- while [ ! -e /sys/class/net/eth0 ]; do usleep 20000; done; ip link set eth0 up;" \
		"ip addr add $1/24 dev eth0; $2"
}

# net_guest MONITOR NAME ADDRESS COMMAND: one guest, from start to end.
net_guest() {
	words="$command_line $(net_words "$3" "$4")"
	case $1 in
	partita)
		timeout -s KILL 300 "$work/partita" run --no-reboot --cpus 1 --memory 256M \
			--kernel "$work/vmlinuz" --initrd "$work/initrd" \
			--control "$work/$2.control" --cmdline "$words"
		;;
	*)
		vhost=off
		[ "$1" = q35 ] || vhost=on
		timeout -s KILL 300 qemu-system-x86_64 -nodefaults -no-user-config -display none \
			-no-reboot -machine q35 -accel kvm -cpu "host,$enlightenments" -smp 1 -m 256 \
			-serial stdio -kernel "$work/vmlinuz" -initrd "$work/initrd" \
			-append "$words" \
			-netdev "tap,id=net,ifname=$2,script=no,downscript=no,vhost=$vhost" \
			-device "virtio-net-pci,netdev=net,mac=00:15:5d:08:00:0${3##*.}"
		;;
	esac </dev/null
}

# net_ready FILE TEXT: until the file has the text.
net_ready() {
	tries=0
	until grep -qs "$2" "$1"; do
		tries=$((tries + 1))
		[ $tries -lt 600 ] || return 1
		sleep 0.2
	done
}

net_host_up() {
	ip addr add 10.8.0.9/24 dev "$1"
	ip link set "$1" up
}

# The network of a monitor, before and after its guests are started.
net_before() {
	[ "$1" != partita ] || return 0
	ip link add bench-br type bridge forward_delay 0
	for tap in net-a net-b; do
		ip tuntap add dev $tap mode tap vnet_hdr
		ip link set $tap master bench-br up
	done
	net_host_up bench-br
}

net_after() {
	[ "$1" = partita ] || return 0
	while [ ! -S "$work/net-a.control" ] || [ ! -S "$work/net-b.control" ]; do sleep 0.1; done
	id=6e657400-6265-4e63-8000-00000000000
	"$work/wire" tap:net-host "add:$work/net-a.control,${id}1,00:15:5d:08:00:01" \
		"add:$work/net-b.control,${id}2,00:15:5d:08:00:02" >"$work/wire-up" &
	net_wire=$!
	net_ready "$work/wire-up" 'wire: up'
	net_host_up net-host
}

# net_session MONITOR: leaves what the guest measured in $work/net-MONITOR.
net_session() {
	! finished "net-$1" || return 0
	echo "# session net-$1"
	net_wire=
	net_before "$1"
	net_guest "$1" net-b 10.8.0.2 '/tests/traffic server 5001' >"$work/net-server" 2>&1 &
	server=$!
	commands=$(echo "$net_loads" | tr ';' '\n' | sed 's|.*|/tests/traffic &; /tests/traffic &; /tests/traffic &;|')
	net_guest "$1" net-a 10.8.0.1 "sleep 2; $(echo $commands)" >"$work/net-$1.new" 2>&1 &
	client=$!
	net_after "$1"
	"$work/traffic" server 5001 >/dev/null 2>&1 &
	host=$!
	# A word now and then says outside that this lab does not stand still.
	tail -n +1 -f --pid=$client "$work/net-$1.new" | sed -u -n 's/^traffic: /# net: /p'
	wait $client || :
	kill $host $server $net_wire 2>/dev/null || :
	wait $host $server $net_wire 2>/dev/null || :
	tr -d '\r' <"$work/net-$1.new" >"$work/net-$1"
	finished "net-$1" || tail -n 20 "$work/net-$1"
	cp "$work/net-$1" /out/
	if [ "$1" != partita ]; then
		for link in net-a net-b bench-br; do ip link del $link; done
	fi
}

# net_rate MONITOR NAME WHICH: units a second; WHICH of the loads of that name, three runs each.
net_rate() {
	awk -v name="$2" -v which="$3" '$1 == "traffic:" && $2 == name && n++ >= 3 * which &&
		n <= 3 * which + 3 { print $3 / $4 }' "$work/net-$1" | median
}

modprobe tun
modprobe bridge
modprobe vhost_net
for monitor in partita q35 q35-vhost; do
	net_session $monitor
done
# row, the load's name, which of those with this name
for row in 'guest-1 send1 0' 'guest-4 send4 0' 'to-host-1 send1 1' 'to-host-4 send4 1' \
	'of-host-1 get1 0' 'of-host-4 get4 0' 'small flood 0' 'echo echo 0'; do
	set -- $row
	set -- "$1" "$(net_rate partita "$2" "$3")" \
		$(best higher q35 "$(net_rate q35 "$2" "$3")" vhost "$(net_rate q35-vhost "$2" "$3")")
	result "net-$1" "$2" "$3" "$4"
done
