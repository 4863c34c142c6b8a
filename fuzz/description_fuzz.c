// SPDX-License-Identifier: MIT
/*
 * The description of a virtual machine, as JSON from anywhere. What is refused leaves the result
 * alone and says why in one printable line; what is accepted is within its limits, and reads the
 * same after it was written.
 */
#include "lib/cleanup.h"
#include "worker/vm_description.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_refused(int r, const struct vm_description *vm, const struct error *err)
{
	static const struct vm_description untouched;

	if (err->code != r || !err->message[0] || memcmp(vm, &untouched, sizeof(*vm)))
		abort();
	for (const char *p = err->message; *p; p++)
		if (*p < ' ' || *p > '~')
			abort();
}

static void check_file(const struct vm_file *file)
{
	if (!file->present || file->descriptor < -1 || file->descriptor > 1048575 ||
	    (file->path && (!file->path[0] || strlen(file->path) > 4 * 4095)))
		abort();
}

static void check_limits(const struct vm_description *vm)
{
	if (!vm->name || !vm->name[0] || !vm->engine || vm->processors < 1 || vm->processors > 64 ||
	    vm->memory < 16 || vm->memory > 1048576 || vm->scsi_count > 4 || vm->serial_count > 2 ||
	    vm->storvsp.sub_channels > 64 || vm->on_reset > VM_ON_RESET_STOP)
		abort();
	check_file(&vm->boot.kernel);
	for (unsigned i = 0; i < vm->serial_count; i++)
		if (vm->serial[i].kind > VM_SERIAL_KIND_PTY)
			abort();
	for (unsigned i = 0; i < vm->scsi_count; i++) {
		if (vm->scsi[i].drives_count > 64)
			abort();
		for (unsigned j = 0; j < vm->scsi[i].drives_count; j++) {
			const struct vm_drive *drive = &vm->scsi[i].drives[j];

			check_file(&drive->file);
			if (drive->lun > 63 || drive->kind > VM_DRIVE_KIND_DVD ||
			    drive->format > VM_DRIVE_FORMAT_VHDX)
				abort();
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(vm_description_deinit) struct vm_description vm = { 0 }, again = { 0 };
	_cleanup_free_ char *first = NULL, *second = NULL;
	struct error err = { 0 };
	int r;

	r = vm_description_parse((const char *)data, size, &vm, &err);
	if (r < 0) {
		check_refused(r, &vm, &err);
		return 0;
	}
	check_limits(&vm);
	first = vm_description_format(&vm);
	if (!first || vm_description_parse(first, strlen(first), &again, &err) < 0)
		abort();
	second = vm_description_format(&again);
	if (!second || strcmp(first, second))
		abort();
	return 0;
}
