# SPDX-License-Identifier: MIT
# where: host
# row: switch-64        | frame/s | ratio >= | 1 | - | 64-byte frames a second of CPU, port to port through the switch's rings; the peer is Open vSwitch's userspace datapath between two veth interfaces, which has no such ports
# row: switch-1514      | frame/s | ratio >= | 1 | - | the same, 1,514-byte frames
# row: switch-veth-64   | frame/s | ratio >= | 1 | - | 64-byte frames a second of the switch's CPU, both between the same two veth interfaces
# row: switch-veth-1514 | frame/s | ratio >= | 1 | - | the same, 1,514-byte frames
#
# In a network namespace of its own, so as root. Frames come as fast as a packet socket sends them on
# the far end of one veth pair; those count that arrive at the far end of the other, over the CPU
# time (user and system) that the switch's process took. What the kernel does for veth outside of
# the process counts for neither. Both take turns, five times; the middle ones are compared. The
# rings' rows count the switch's work alone, without what fills and empties them; for the peer that
# is the best there is without DPDK, so these rows compare what users get, not like with like.

turns=5
seconds=2
net_bench=$build/bench/net-bench

# cpu PID: its CPU time so far, in ticks.
cpu() {
	cut -d ' ' -f 14,15 "/proc/$1/stat" | awk '{ print $1 + $2 }'
}

# flood NAME PID SIZE: adds frames a second of CPU to $work/NAME-SIZE.
flood() {
	before=$(cpu "$2")
	ip netns exec "$space" "$net_bench" send far0 "$3" $seconds >"$work/sent" &
	arrived=$(ip netns exec "$space" "$net_bench" count far1 $((seconds + 1)))
	wait $!
	echo "$arrived $(($(cpu "$2") - before))" |
		awk -v hz="$(getconf CLK_TCK)" '$2 > 0 { printf "%.0f\n", $1 * hz / $2 }' \
			>>"$work/$1-$3"
}

ours_between() {
	ip netns exec "$space" "$net_bench" switch near0 near1 &
	pid=$!
	sleep 1
	for size in 64 1514; do
		flood ours $pid $size
	done
	kill $pid
	wait $pid 2>/dev/null || :
}

# Open vSwitch in folders of $work, with its own database.
ovs_start() {
	export OVS_RUNDIR="$work/ovs" OVS_LOGDIR="$work/ovs" OVS_DBDIR="$work/ovs"
	mkdir -p "$OVS_RUNDIR"
	ovsdb-tool create "$work/ovs/conf.db" /usr/share/openvswitch/vswitch.ovsschema
	ovsdb-server "$work/ovs/conf.db" --remote="punix:$work/ovs/db.sock" --detach \
		--pidfile="$work/ovs/db.pid" --log-file="$work/ovs/db.log" 2>/dev/null
	ip netns exec "$space" ovs-vswitchd "unix:$work/ovs/db.sock" --detach \
		--pidfile="$work/ovs/vswitchd.pid" --log-file="$work/ovs/vswitchd.log" 2>/dev/null
	ovs="ovs-vsctl --db=unix:$work/ovs/db.sock"
	$ovs add-br b0 -- set bridge b0 datapath_type=netdev -- add-port b0 near0 -- \
		add-port b0 near1
}

ovs_between() {
	ovs_start
	sleep 1
	pid=$(cat "$work/ovs/vswitchd.pid")
	for size in 64 1514; do
		flood ovs "$pid" $size
	done
	kill "$pid" "$(cat "$work/ovs/db.pid")"
	sleep 1
	rm -rf "$work/ovs"
}

space=partita-bench-$$
ip netns add "$space"
for i in 0 1; do
	ip -n "$space" link add "near$i" type veth peer name "far$i"
	ip -n "$space" link set "near$i" up
	ip -n "$space" link set "far$i" up
done
for turn in $(seq $turns); do
	ours_between
	ovs_between
	for size in 64 1514; do
		"$net_bench" ring $size >>"$work/ring-$size"
	done
done
ip netns delete "$space"
for size in 64 1514; do
	peer=$(median <"$work/ovs-$size")
	result "switch-$size" "$(median <"$work/ring-$size")" openvswitch-veth "$peer"
	result "switch-veth-$size" "$(median <"$work/ours-$size")" openvswitch-veth "$peer"
done
