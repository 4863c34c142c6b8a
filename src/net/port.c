// SPDX-License-Identifier: MIT
/*
 * See port.h. The memory is a page of control words and two rings of bytes. Each ring is mapped
 * twice in a row, the reader's mapping cannot be written, and so no frame is ever in two pieces. A
 * position counts bytes from the start for ever (modulo 2^32). What one side writes and the other
 * reads has its own cache lines; each side keeps its own positions privately and never takes them
 * back from the memory.
 *
 * Sleeping: the one who is about to sleep sets its flag and looks once more; the one who has
 * published something looks at the flag, takes it down, and sends a byte through the socket. Both
 * have a full barrier between the two. The socket's two ends are two open files: neither side can
 * make the other's calls block, and each sees when the other one is gone.
 */
#include "net/port.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define PORT_MAGIC     0x74726f5061746950 /* "PitaPort" */
#define PORT_VERSION   1u
#define CONTROL_SIZE   4096u
#define RING_SIZE_MIN  (128u * 1024)
#define RING_SIZE_MAX  (16u * 1024 * 1024)
#define RECORD_ALIGN   16u
#define CACHE_LINE     64
#define PORT_SEALS     (F_SEAL_SHRINK | F_SEAL_GROW)
#define OFFLOAD_FLAGS  (NET_CHECKSUM_NEEDED | NET_CHECKSUM_VALID)
#define LARGEST_RECORD ((uint32_t)round_up64(sizeof(struct record) + NET_FRAME_MAX, RECORD_ALIGN))

/* Before each frame. The host's byte order: both sides are on the same machine. */
struct record {
	uint32_t size;
	uint8_t flags, segmentation;
	uint16_t header_size, segment_size, checksum_start, checksum_offset;
	uint16_t zero;
};
_Static_assert(sizeof(struct record) == RECORD_ALIGN, "frames begin aligned");

struct shared_word {
	uint32_t value;
} __attribute__((aligned(CACHE_LINE)));

struct shared_ring {
	struct shared_word head;       /* the writer's position */
	struct shared_word tail;       /* the reader's */
	struct shared_word asleep;     /* the reader wants to be woken */
	struct shared_word wants_room; /* the writer does */
	struct shared_word takes;      /* what may be left to do: the reader's, NET_TAKES_* */
};

struct shared {
	uint64_t magic;
	uint32_t version, ring_size;
	struct shared_ring rings[2] __attribute__((aligned(CACHE_LINE))); /* to switch, to port */
};
_Static_assert(sizeof(struct shared) <= CONTROL_SIZE, "one page");

struct half {
	struct shared_ring *shared;
	uint8_t *data; /* mapped twice in a row; the reader's is read-only */
	uint32_t own;  /* our position */
	uint32_t seen; /* the other side's, when we last looked */
};

struct net_port {
	struct half in, out;
	uint32_t size; /* of a ring */
	uint32_t published, released;
	int socket;
	int fds[NET_PORT_FDS]; /* the other side's, until net_port_fds */
	int failure;           /* negative: ended */
	bool room_wanted;      /* the flag is up, or was taken down by the other side */
	struct shared *shared;
	struct net_port_counters counters;
};

static bool offload_fits(const struct net_offload *o, size_t size)
{
	unsigned kind = o->segmentation & ~NET_SEGMENT_ECN;
	bool tcp = kind == NET_SEGMENT_TCP4 || kind == NET_SEGMENT_TCP6;

	if (o->flags & ~OFFLOAD_FLAGS || o->header_size > size)
		return false;
	if (o->flags & NET_CHECKSUM_NEEDED &&
	    (o->checksum_start < NET_FRAME_MIN ||
	     !range_inside((size_t)o->checksum_start + o->checksum_offset, 2, size)))
		return false;
	if (o->segmentation == NET_SEGMENT_NONE)
		return true;
	if (!tcp && o->segmentation != NET_SEGMENT_UDP)
		return false;
	return o->segment_size && o->flags & NET_CHECKSUM_NEEDED;
}

static uint32_t record_size(uint32_t frame)
{
	return (uint32_t)round_up64(sizeof(struct record) + frame, RECORD_ALIGN);
}

static int port_fail(struct net_port *p, int code)
{
	if (!p->failure)
		p->failure = code;
	return p->failure;
}

static void port_wake(struct net_port *p)
{
	/* A full socket means that the other side has not read what it was sent: it will. */
	if (send(p->socket, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == EPIPE)
		port_fail(p, -EPIPE);
}

/* Whether the flag was up; it is down then. */
static bool flag_take(struct shared_word *flag)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return __atomic_load_n(&flag->value, __ATOMIC_RELAXED) &&
	       __atomic_exchange_n(&flag->value, 0, __ATOMIC_SEQ_CST);
}

static void flag_raise(struct shared_word *flag)
{
	__atomic_store_n(&flag->value, 1, __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Bytes that the writer may fill, after a look at the reader's position; negative: nonsense. */
static int64_t room_look(struct net_port *p)
{
	struct half *h = &p->out;
	uint32_t tail = __atomic_load_n(&h->shared->tail.value, __ATOMIC_ACQUIRE);

	if (h->own - tail > p->size || tail - h->seen > p->size || tail % RECORD_ALIGN)
		return port_fail(p, -EIO);
	h->seen = tail;
	return p->size - (h->own - tail);
}

static int room_check(struct net_port *p, uint32_t bytes)
{
	int64_t room = p->size - (p->out.own - p->out.seen);

	if (room >= bytes)
		return 0;
	room = room_look(p);
	if (room < 0)
		return p->failure;
	return room >= bytes ? 0 : -EAGAIN;
}

int net_port_send(struct net_port *p, const struct net_offload *offload, const struct iovec *iov,
		  unsigned count, size_t size)
{
	struct record r = { .size = (uint32_t)size };
	uint8_t *to = p->out.data + (p->out.own & (p->size - 1));
	size_t at = sizeof(r);
	int e;

	if (p->failure)
		return p->failure;
	if (size < NET_FRAME_MIN || size > NET_FRAME_MAX)
		return -EMSGSIZE;
	if (offload) {
		if (!offload_fits(offload, size))
			return -EINVAL;
		r.flags = offload->flags;
		r.segmentation = offload->segmentation;
		r.header_size = offload->header_size;
		r.segment_size = offload->segment_size;
		r.checksum_start = offload->checksum_start;
		r.checksum_offset = offload->checksum_offset;
	}
	e = room_check(p, record_size(r.size));
	if (e) {
		p->counters.full += e == -EAGAIN;
		return e;
	}
	memcpy(to, &r, sizeof(r));
	for (unsigned i = 0; i < count && at < sizeof(r) + size; i++) {
		size_t n = MIN(iov[i].iov_len, sizeof(r) + size - at);

		memcpy(to + at, iov[i].iov_base, n);
		at += n;
	}
	if (at < sizeof(r) + size)
		return -EINVAL;
	p->out.own += record_size(r.size);
	p->counters.frames_out++;
	p->counters.bytes_out += size;
	return 0;
}

void net_port_flush(struct net_port *p)
{
	if (p->published == p->out.own)
		return;
	p->published = p->out.own;
	__atomic_store_n(&p->out.shared->head.value, p->published, __ATOMIC_RELEASE);
	if (flag_take(&p->out.shared->asleep))
		port_wake(p);
}

/* Room for any frame and for many small ones, so that a full ring does not mean a wake for each. */
static uint32_t room_enough(const struct net_port *p)
{
	return MAX(p->size / 2, LARGEST_RECORD);
}

bool net_port_want_room(struct net_port *p)
{
	int64_t room;

	net_port_flush(p);
	if (p->failure)
		return true;
	flag_raise(&p->out.shared->wants_room);
	room = room_look(p);
	p->room_wanted = room >= 0 && room < room_enough(p);
	/* Made while nobody was told to say so. */
	if (!p->room_wanted)
		(void)flag_take(&p->out.shared->wants_room);
	return !p->room_wanted;
}

static int record_judge(struct net_port *p, const struct record *r, struct net_frame *ret)
{
	ret->offload = (struct net_offload){
		.flags = r->flags,
		.segmentation = r->segmentation,
		.header_size = r->header_size,
		.segment_size = r->segment_size,
		.checksum_start = r->checksum_start,
		.checksum_offset = r->checksum_offset,
	};
	if (r->size < NET_FRAME_MIN || r->size > NET_FRAME_MAX ||
	    record_size(r->size) > p->in.seen - p->in.own || !offload_fits(&ret->offload, r->size))
		return port_fail(p, -EIO);
	return 1;
}

int net_port_receive(struct net_port *p, struct net_frame *ret)
{
	struct half *h = &p->in;
	struct record r;
	const uint8_t *from;

	if (p->failure == -EIO)
		return p->failure;
	if (h->seen == h->own) {
		uint32_t head = __atomic_load_n(&h->shared->head.value, __ATOMIC_ACQUIRE);

		if (head - h->own > p->size || head - p->released > p->size || head % RECORD_ALIGN)
			return port_fail(p, -EIO);
		h->seen = head;
		if (head == h->own)
			return p->failure;
	}
	from = h->data + (h->own & (p->size - 1));
	memcpy(&r, from, sizeof(r));
	/* From here on nothing reads the record in the ring again, the compiler included. */
	__asm__ volatile("" : : : "memory");
	if (record_judge(p, &r, ret) < 0)
		return p->failure;
	ret->data = from + sizeof(r);
	ret->size = r.size;
	h->own += record_size(r.size);
	p->counters.frames_in++;
	p->counters.bytes_in += r.size;
	return 1;
}

void net_port_release(struct net_port *p)
{
	struct half *h = &p->in;

	if (p->released == h->own)
		return;
	p->released = h->own;
	__atomic_store_n(&h->shared->tail.value, h->own, __ATOMIC_RELEASE);
	/* Whoever waits is woken by the last release before the ring is empty at the latest. */
	if (p->size - (h->seen - h->own) >= room_enough(p) && flag_take(&h->shared->wants_room))
		port_wake(p);
}

/* What the other side has sent through the socket; true when there was anything. */
static bool socket_drain(struct net_port *p)
{
	char bytes[256];
	ssize_t n = recv(p->socket, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (!n || (n < 0 && errno == ECONNRESET))
		port_fail(p, -EPIPE);
	return n > 0;
}

/* Room that was wanted has been made. */
static bool room_came(struct net_port *p)
{
	if (!p->room_wanted || __atomic_load_n(&p->out.shared->wants_room.value, __ATOMIC_ACQUIRE))
		return false;
	p->room_wanted = false;
	return true;
}

bool net_port_arm(struct net_port *p)
{
	struct half *h = &p->in;
	bool failed = p->failure;

	/* In this order: a byte that comes later leaves the descriptor readable. */
	(void)socket_drain(p);
	if (failed)
		return true;
	flag_raise(&h->shared->asleep);
	if (!p->failure && !room_came(p) &&
	    __atomic_load_n(&h->shared->head.value, __ATOMIC_ACQUIRE) == h->own)
		return true;
	(void)flag_take(&h->shared->asleep);
	return false;
}

void net_port_take(struct net_port *p, unsigned takes)
{
	__atomic_store_n(&p->in.shared->takes.value, takes, __ATOMIC_RELAXED);
}

unsigned net_port_takes(const struct net_port *p)
{
	return __atomic_load_n(&p->out.shared->takes.value, __ATOMIC_RELAXED) & NET_TAKES_ALL;
}

int net_port_fd(const struct net_port *p)
{
	return p->socket;
}

struct net_port_counters net_port_counters(const struct net_port *p)
{
	return p->counters;
}

void net_port_fds(struct net_port *p, int ret[NET_PORT_FDS])
{
	for (unsigned i = 0; i < NET_PORT_FDS; i++)
		ret[i] = steal_fd(&p->fds[i]);
}

/* --- making one --- */

/* The ring's bytes twice in a row; NULL with errno. */
static uint8_t *ring_map(int memory, unsigned which, uint32_t size, int protection)
{
	off_t offset = CONTROL_SIZE + (off_t)which * size;
	uint8_t *at = mmap(NULL, (size_t)size * 2, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		return NULL;
	for (unsigned i = 0; i < 2; i++) {
		if (mmap(at + (size_t)i * size, size, protection, MAP_SHARED | MAP_FIXED, memory,
			 offset) == MAP_FAILED) {
			int e = errno;

			munmap(at, (size_t)size * 2);
			errno = e;
			return NULL;
		}
	}
	return at;
}

static int port_map(struct net_port *p, int memory, enum net_side side, struct error *err)
{
	unsigned in = side == NET_SIDE_SWITCH ? 0 : 1;

	p->shared = mmap(NULL, CONTROL_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	if (p->shared == MAP_FAILED) {
		p->shared = NULL;
		return error_errno(err, -errno, "network port: cannot map its memory");
	}
	p->in.data = ring_map(memory, in, p->size, PROT_READ);
	p->out.data = ring_map(memory, !in, p->size, PROT_READ | PROT_WRITE);
	if (!p->in.data || !p->out.data)
		return error_errno(err, -errno, "network port: cannot map its rings");
	p->in.shared = &p->shared->rings[in];
	p->out.shared = &p->shared->rings[!in];
	return 0;
}

void net_port_free(struct net_port *p)
{
	if (!p)
		return;
	if (p->shared)
		munmap(p->shared, CONTROL_SIZE);
	if (p->in.data)
		munmap(p->in.data, (size_t)p->size * 2);
	if (p->out.data)
		munmap(p->out.data, (size_t)p->size * 2);
	close_p(&p->socket);
	for (unsigned i = 0; i < NET_PORT_FDS; i++)
		close_p(&p->fds[i]);
	free(p);
}

static struct net_port *port_alloc(void)
{
	struct net_port *p = calloc(1, sizeof(*p));

	if (p) {
		p->socket = -1;
		for (unsigned i = 0; i < NET_PORT_FDS; i++)
			p->fds[i] = -1;
	}
	return p;
}

static int memory_new(uint32_t ring_size, int *ret, struct error *err)
{
	_cleanup_close_ int fd = memfd_create("net-port", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, CONTROL_SIZE + 2 * (off_t)ring_size) < 0 ||
	    fcntl(fd, F_ADD_SEALS, PORT_SEALS | F_SEAL_SEAL) < 0)
		return error_errno(err, -errno, "network port: cannot make its memory");
	*ret = steal_fd(&fd);
	return 0;
}

DEFINE_CLEANUP(struct net_port *, net_port_free)

int net_port_new(size_t ring_size, struct net_port **ret, struct error *err)
{
	_cleanup_(net_port_free_p) struct net_port *p = port_alloc();
	int ends[2], r;

	if (!p)
		return error_set(err, -ENOMEM, "network port: out of memory");
	if (!is_power_of_2(ring_size) || ring_size < RING_SIZE_MIN || ring_size > RING_SIZE_MAX)
		return error_set(err, -EINVAL,
				 "network port: a ring has 128 KiB to 16 MiB, a power of two, "
				 "not %zu bytes",
				 ring_size);
	p->size = (uint32_t)ring_size;
	r = memory_new(p->size, &p->fds[0], err);
	if (r < 0)
		return r;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
		return error_errno(err, -errno, "network port: cannot make its sockets");
	p->socket = ends[0];
	p->fds[1] = ends[1];
	r = port_map(p, p->fds[0], NET_SIDE_SWITCH, err);
	if (r < 0)
		return r;
	p->shared->version = PORT_VERSION;
	p->shared->ring_size = p->size;
	p->shared->magic = PORT_MAGIC;
	*ret = steal_ptr(p);
	return 0;
}

/* The size of its rings, from the size of the memory, which is sealed. */
static int memory_check(int fd, uint32_t *ret, struct error *err)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);
	uint64_t size;

	if (seals < 0 || (seals & PORT_SEALS) != PORT_SEALS || fstat(fd, &st) < 0)
		return error_set(err, -EINVAL,
				 "network port: descriptor 0 is not memory sealed in size");
	size = ((uint64_t)st.st_size - CONTROL_SIZE) / 2;
	if (st.st_size < CONTROL_SIZE || CONTROL_SIZE + 2 * size != (uint64_t)st.st_size ||
	    !is_power_of_2(size) || size < RING_SIZE_MIN || size > RING_SIZE_MAX)
		return error_set(err, -EINVAL, "network port: memory of %lld bytes is not a port's",
				 (long long)st.st_size);
	*ret = (uint32_t)size;
	return 0;
}

static int port_check(const struct net_port *p, struct error *err)
{
	const volatile struct shared *s = p->shared;
	struct stat st;

	if (s->magic != PORT_MAGIC || s->version != PORT_VERSION || s->ring_size != p->size)
		return error_set(err, -EINVAL,
				 "network port: the memory is not a port's, or of another version");
	if (fstat(p->socket, &st) < 0 || !S_ISSOCK(st.st_mode))
		return error_set(err, -EINVAL, "network port: descriptor 1 is not a socket");
	return 0;
}

int net_port_open(const int fds[NET_PORT_FDS], struct net_port **ret, struct error *err)
{
	_cleanup_close_ int memory = fds[0];
	_cleanup_close_ int socket = fds[1];
	_cleanup_(net_port_free_p) struct net_port *p = port_alloc();
	int r;

	if (!p)
		return error_set(err, -ENOMEM, "network port: out of memory");
	p->socket = steal_fd(&socket);
	r = memory_check(memory, &p->size, err);
	if (r >= 0)
		r = port_map(p, memory, NET_SIDE_PORT, err);
	if (r >= 0)
		r = port_check(p, err);
	if (r < 0)
		return r;
	*ret = steal_ptr(p);
	return 0;
}
