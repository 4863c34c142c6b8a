# SPDX-License-Identifier: MIT
# row: service-boot | s | ratio <= | 1.05 | - | `partita vm start` to the guest's init; the peer is `partita run` of the same machine
#
# What the service costs on the way from a person's command to a running guest: the same kernel,
# disk and memory as in boot.sh, once through service, keeper and console socket, once without. The
# service is up and knows the machine; the client starts it and then shows its console. The median
# of the rounds, in turns.

# As for the demo: a folder with a short name, since there are sockets in it.
service_up() {
	XDG_RUNTIME_DIR=$(mktemp -d /tmp/partita-boot-XXXXXX)
	XDG_STATE_HOME=$XDG_RUNTIME_DIR/state
	export XDG_RUNTIME_DIR XDG_STATE_HOME
	unset PARTITA_HOST || :
	"$work/partita" host up >/dev/null
	"$work/partita" vm create boot --cpus 1 --memory "${ram}M" --kernel "$work/vmlinuz" \
		--initrd "$work/initrd" --cmdline "$command_line" --disk "$work/disk/disk.raw" \
		--com console --automatic-stop turn-off --hardware-on-guest-reset stop >/dev/null
}

service_down() {
	"$work/partita" host down --stop-machines >/dev/null
	rm -rf "$XDG_RUNTIME_DIR"
}

service_up
for round in $(seq $rounds); do
	watched partita "service-boot-partita-$round" ''
	watched partita-service "service-boot-service-$round" ''
	"$work/partita" vm wait boot --state off --timeout 60 >/dev/null
done
service_down

# service_boot_median NAME
service_boot_median() {
	for round in $(seq $rounds); do
		sed -n 's/^mark \([0-9.]*\) .*partita-guest: init .*/\1/p' "$work/service-boot-$1-$round"
	done | sort -n | sed -n "$((rounds / 2 + 1))p"
}

result service-boot "$(service_boot_median service)" partita-run "$(service_boot_median partita)" \
	service-boot-service-1 service-boot-partita-1 init
