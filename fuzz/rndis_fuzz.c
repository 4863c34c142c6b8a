// SPDX-License-Identifier: MIT
/*
 * RNDIS packets of a hostile guest: the whole input is what lies in the guest's pages, sent as one
 * packet (byte 0, bit 0: of the control channel; bit 1: in the send buffer; bits 2-4: cut there
 * into two pieces), while the guest changes it under our feet (bit 5). Checked: one answer for each
 * packet; what reaches the switch are frames of possible sizes with offloads that fit; requests are
 * answered once, whatever they are, and the adapter goes on.
 */
#include "devices/netvsp/netvsp_testing.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ROOM 4096u

static struct net_bed *bed;
static atomic_bool changing;

static void insist(bool holds)
{
	if (!holds)
		abort();
}

/* Another processor of the guest. */
static void *change(void *arg)
{
	volatile uint8_t *page = arg;

	for (unsigned i = 0; atomic_load(&changing); i = i * 5 + 1)
		page[i % 64] ^= (uint8_t)(i >> 8);
	return NULL;
}

static void settle(void)
{
	uint8_t answer[2048];
	struct net_offload o;
	static uint8_t frame[NET_FRAME_MAX];
	size_t size;

	while ((size = net_bed_frame(bed, frame, &o)))
		insist(size >= NET_FRAME_MIN);
	while (net_bed_take(bed, 0)) {
		insist(bed->type == VMBUS_PACKET_TRANSFER_PAGES && bed->range_count == 1);
		insist(!gmem_read(bed->g->gm, bed->receive_gpa + bed->range_offset[0], answer,
				  MIN(bed->range_bytes[0], sizeof(answer))));
		insist(answer[3] == 0x80 || answer[0] == RNDIS_MSG_INDICATE);
		net_bed_complete(bed, 0, bed->transaction);
	}
	test_guest_pump(bed->g);
	insist(netvsp_state(bed->n).sections == netvsp_state(bed->n).sections_free);
}

static void post(uint8_t how, const uint8_t *bytes, size_t size)
{
	struct nvsp_message m = { .type = le32_of(NVSP_MSG1_TYPE_SEND_RNDIS_PKT),
				  .rndis.channel_type = le32_of(how & 1),
				  .rndis.send_buf_section_index = le32_of(NVSP_INVALID_SECTION) };
	size_t cut = how & 2 ? size : size * (how >> 2 & 7) / 8;
	uint64_t gpa = bed->scratch_gpa + 4096 - cut % 256;

	if (cut) {
		m.rndis.send_buf_section_index = le32_of(2);
		m.rndis.send_buf_section_size = le32_of((uint32_t)cut);
		insist(!gmem_write(bed->g->gm, bed->send_gpa + 2 * 6144, bytes, cut));
	}
	insist(!gmem_write(bed->g->gm, gpa, bytes + cut, size - cut));
	if (size - cut)
		insist(!test_channel_request_gpa(&bed->ch[0], 9, &m, sizeof(m), gpa,
						 (uint32_t)(size - cut)));
	else
		insist(!test_channel_request(&bed->ch[0], 9, &m, sizeof(m)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t init[24] = { RNDIS_MSG_INIT, 0, 0, 0, 24, 0, 0, 0, 1, 0, 0, 0, 1 };
	static uint8_t answer[128];
	pthread_t thread;
	uint8_t how;

	if (size < 2 || size > ROOM)
		return 0;
	if (!bed) {
		bed = net_bed_new(1, &(struct netvsp_options){ .mac_changes = true });
		net_bed_ready(bed, NVSP_PROTOCOL_VERSION_61, 9014);
	}
	how = data[0];
	if (how & 32) {
		atomic_store(&changing, true);
		insist(!pthread_create(&thread, NULL, change,
				       gmem_page(bed->g->gm, how & 2 ? bed->send_gpa + 2 * 6144
								     : bed->scratch_gpa + 4096)));
	}
	post(how, data + 1, size - 1);
	insist(net_bed_take(bed, 0) && bed->type == VMBUS_PACKET_COMPLETION);
	if (how & 32) {
		atomic_store(&changing, false);
		pthread_join(thread, NULL);
	}
	settle();
	/* HALT may have been among it. */
	insist(net_bed_send(bed, 0, NVSP_CHANNEL_TYPE_CONTROL, init, sizeof(init)) ==
	       NVSP_STAT_SUCCESS);
	insist(net_bed_rndis(bed, 0, answer, sizeof(answer)) == 52);
	settle();
	return 0;
}
