# SPDX-License-Identifier: MIT
# row: disk-read-4k-qd1   | op/s | ratio >= | 0.9 | 1.1 | 4 KiB random reads, one at a time
# row: disk-read-4k-qd32  | op/s | ratio >= | 0.9 | 1.1 | 4 KiB random reads, 32 at a time
# row: disk-write-4k-qd1  | op/s | ratio >= | 0.9 | 1.1 | 4 KiB random writes, one at a time
# row: disk-write-4k-qd32 | op/s | ratio >= | 0.9 | 1.1 | 4 KiB random writes, 32 at a time
# row: disk-read-1m       | op/s | ratio >= | 0.9 | 1.1 | 1 MiB sequential reads
# row: disk-write-1m      | op/s | ratio >= | 0.9 | 1.1 | 1 MiB sequential writes
# row: disk-read-1m-huge  | op/s | ratio >= | 0.9 | 1.1 | 1 MiB sequential reads into a huge page
# row: disk-write-1m-huge | op/s | ratio >= | 0.9 | 1.1 | 1 MiB sequential writes from a huge page
# row: vhdx-read-4k-qd1   | op/s | ratio >= | 0.95 | - | the same on VHDX; the peer is Partita on raw
# row: vhdx-read-4k-qd32  | op/s | ratio >= | 0.95 | - | the same on VHDX
# row: vhdx-write-4k-qd1  | op/s | ratio >= | 0.95 | - | the same on VHDX
# row: vhdx-write-4k-qd32 | op/s | ratio >= | 0.95 | - | the same on VHDX
# row: vhdx-read-1m       | op/s | ratio >= | 0.95 | - | the same on VHDX
# row: vhdx-write-1m      | op/s | ratio >= | 0.95 | - | the same on VHDX
# row: vhdx-read-1m-huge  | op/s | ratio >= | 0.95 | - | the same on VHDX
# row: vhdx-write-1m-huge | op/s | ratio >= | 0.95 | - | the same on VHDX
# row: locked-read-4k-qd32  | op/s | ratio >= | 1 | - | on raw with the guest's memory locked; the peer is Partita without
# row: locked-write-4k-qd32 | op/s | ratio >= | 1 | - | the same, writes
#
# guest_io.c is the load, with O_DIRECT in the guest and in the host. The file lies on ext4 on a RAM
# disk: tmpfs knows no O_DIRECT, and the time of a disk outside the lab is not counted in
# instructions. So what is compared is the monitors' own work. It is there in full, no block of it
# sparse. Peers: virtio-blk on PCI (q35) or MMIO (microvm), cache=none, aio=io_uring.

for name in partita q35 microvm partita-vhdx partita-locked; do
	session $name
done
for load in read-4k-qd32 write-4k-qd32; do
	result locked-$load "$(rate partita-locked $load)" partita "$(rate partita $load)" \
		session-partita-locked session-partita $load
done
for load in read-4k-qd1 read-4k-qd32 write-4k-qd1 write-4k-qd32 read-1m write-1m \
	read-1m-huge write-1m-huge; do
	ours=$(rate partita $load)
	set -- $(best higher q35 "$(rate q35 $load)" microvm "$(rate microvm $load)")
	result disk-$load "$ours" "$1" "$2" session-partita "session-$1" $load
	result vhdx-$load "$(rate partita-vhdx $load)" partita-raw "$ours" \
		session-partita-vhdx session-partita $load
done
