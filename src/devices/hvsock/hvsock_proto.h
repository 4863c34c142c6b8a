/* SPDX-License-Identifier: MIT */
/*
 * Hyper-V sockets on the wire: what an offer says beside its identities, and the head of each
 * packet. Names and values are those of Linux net/vmw_vsock/hyperv_transport.c and of OpenVMM's
 * vmbus_core/src/protocol.rs (HvsockUserDefinedParameters), which agree. Nothing of our own.
 */
#pragma once

#include "lib/guid.h"

/* User data of an offer: u32 pipe type (0 = bytes), u8 is_for_guest_accept, ... */
#define HVSOCK_PIPE_BYTES 0u

/* vmpipe_proto_header: u32 pkt_type, u32 data_size; a size of 0 ends that direction. */
#define VMPIPE_HEADER_SIZE 8u
#define VMPIPE_DATA        1u
#define HVS_MTU_SIZE       16384u

/* Ports of vsock are service identities of this form, the port first. */
#define HVSOCK_MAX_PORT 0x7fffffffu
#define HVSOCK_TEMPLATE GUID(0, 0xfacb, 0x11e6, 0xbd, 0x58, 0x64, 0x00, 0x6a, 0x79, 0x86, 0xd3)
