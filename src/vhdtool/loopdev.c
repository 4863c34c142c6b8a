// SPDX-License-Identifier: MIT
/* See loopdev.h; loop(4). */
#include "vhdtool/loopdev.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#define TRIES 32 /* somebody else may take the free one first */

static int attach_free(int control, struct loop_config *c, bool read_only,
		       char ret_name[LOOPDEV_NAME_SIZE])
{
	_cleanup_close_ int fd = -1;
	int number = ioctl(control, LOOP_CTL_GET_FREE);

	if (number < 0)
		return -errno;
	snprintf(ret_name, LOOPDEV_NAME_SIZE, "/dev/loop%d", number);
	fd = open(ret_name, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, LOOP_CONFIGURE, c) < 0)
		return -errno;
	return steal_fd(&fd);
}

int loopdev_attach(int file, const struct loopdev_options *o, char ret_name[LOOPDEV_NAME_SIZE],
		   struct error *err)
{
	_cleanup_close_ int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	struct loop_config c = {
		.fd = (uint32_t)file,
		.block_size = o->sector,
		.info = { .lo_offset = o->offset,
			  .lo_sizelimit = o->length,
			  .lo_flags = LO_FLAGS_DIRECT_IO },
	};
	int r = -EBUSY;

	if (control < 0)
		return error_errno(err, -errno, "cannot open /dev/loop-control");
	c.info.lo_flags |= o->read_only ? LO_FLAGS_READ_ONLY : 0;
	c.info.lo_flags |= o->auto_clear ? LO_FLAGS_AUTOCLEAR : 0;
	snprintf((char *)c.info.lo_file_name, sizeof(c.info.lo_file_name), "%s", o->label);
	for (unsigned i = 0; i < TRIES && r == -EBUSY; i++)
		r = attach_free(control, &c, o->read_only, ret_name);
	return r < 0 ? error_errno(err, r, "cannot attach a loop device") : r;
}

bool loopdev_is(const char *name, const char *label)
{
	_cleanup_close_ int fd = open(name, O_RDONLY | O_CLOEXEC);
	struct loop_info64 info;

	return fd >= 0 && !ioctl(fd, LOOP_GET_STATUS64, &info) &&
	       !strncmp((const char *)info.lo_file_name, label, sizeof(info.lo_file_name));
}

int loopdev_detach(const char *name, struct error *err)
{
	_cleanup_close_ int fd = open(name, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || (ioctl(fd, LOOP_CLR_FD) < 0 && errno != ENXIO))
		return error_errno(err, -errno, "cannot detach %s", name);
	return 0;
}
