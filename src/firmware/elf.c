// SPDX-License-Identifier: MIT
/*
 * ELF images, 32- and 64-bit, x86: loads the segments at their physical addresses and finds the PVH
 * entry note (System V ABI, chapters 4 and 5; Xen docs/misc/pvh.pandoc and public/elfnote.h). What
 * follows loading, PVH or multiboot, is decided by the caller.
 */
#include "firmware/boot_internal.h"

#include "lib/cleanup.h"

#include <elf.h>
#include <errno.h>

#define SEGMENTS_MAX          64
#define NOTES_MAX             (64 * KIB)
#define NOTE_XEN_PHYS32_ENTRY 18 /* Xen public/elfnote.h */

struct segment {
	uint32_t type;
	uint64_t offset, vaddr, paddr, filesz, memsz;
};

struct elf_image {
	bool wide;
	uint16_t machine, phentsize, phnum;
	uint64_t entry, phoff;
};

bool elf_probe(const struct boot *b)
{
	return b->head_size >= EI_NIDENT && !memcmp(b->head, ELFMAG, SELFMAG);
}

static uint64_t word(struct reader *r, bool wide)
{
	return wide ? reader_le64(r) : reader_le32(r);
}

static int header_decode(const struct boot *b, struct elf_image *ret, struct error *err)
{
	struct reader r = reader_of(b->head, b->head_size);
	struct elf_image e = { .wide = b->head[EI_CLASS] == ELFCLASS64 };

	reader_seek(&r, EI_NIDENT + 2);
	e.machine = reader_le16(&r);
	reader_skip(&r, 4); /* e_version */
	e.entry = word(&r, e.wide);
	e.phoff = word(&r, e.wide);
	(void)word(&r, e.wide); /* e_shoff */
	reader_skip(&r, 6);     /* e_flags, e_ehsize */
	e.phentsize = reader_le16(&r);
	e.phnum = reader_le16(&r);
	if (!reader_ok(&r))
		return error_set(err, -EIO, "the kernel file is truncated: no whole ELF header");
	if (b->head[EI_DATA] != ELFDATA2LSB || (e.machine != EM_386 && e.machine != EM_X86_64))
		return error_set(err, -ENOEXEC,
				 "the kernel is an ELF file for another processor (machine %u); "
				 "x86 is needed",
				 e.machine);
	if (!e.phnum || e.phnum > SEGMENTS_MAX ||
	    e.phentsize != (e.wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)))
		return error_set(err, -ENOEXEC,
				 "the kernel's ELF header has %u segments of %u bytes each: not an "
				 "executable that can be loaded",
				 e.phnum, e.phentsize);
	*ret = e;
	return 0;
}

static struct segment segment_decode(struct reader *r, bool wide)
{
	struct segment s = { .type = reader_le32(r) };

	if (wide)
		reader_skip(r, 4); /* p_flags */
	s.offset = word(r, wide);
	s.vaddr = word(r, wide);
	s.paddr = word(r, wide);
	s.filesz = word(r, wide);
	s.memsz = word(r, wide);
	reader_skip(r, 8); /* p_align; in the narrow form p_flags and p_align */
	return s;
}

static int segments_read(struct boot *b, const struct elf_image *e, struct segment *segments,
			 struct error *err)
{
	uint8_t table[SEGMENTS_MAX * sizeof(Elf64_Phdr)];
	size_t size = (size_t)e->phnum * e->phentsize;
	struct reader r = reader_of(table, size);
	int ret = boot_file_read(&b->kernel, e->phoff, table, size, err);

	if (ret < 0)
		return ret;
	for (unsigned i = 0; i < e->phnum; i++)
		segments[i] = segment_decode(&r, e->wide);
	return 0;
}

static int segment_load(struct boot *b, const struct segment *s, struct error *err)
{
	int r;

	if (s->filesz > s->memsz)
		return error_set(err, -ENOEXEC,
				 "the kernel's ELF segment at 0x%llx is larger in the file than in "
				 "memory",
				 (unsigned long long)s->paddr);
	r = boot_image_claim(b, s->paddr, s->memsz, err);
	if (r < 0)
		return r;
	r = boot_file_load(b, &b->kernel, s->offset, s->paddr, s->filesz, err);
	if (r < 0)
		return r;
	if (gmem_fill(b->gm, s->paddr + s->filesz, 0, s->memsz - s->filesz) < 0)
		return error_set(err, -EFAULT, "no memory for the kernel's zeroed data");
	return 0;
}

static int segments_load(struct boot *b, const struct elf_image *e, const struct segment *segments,
			 struct error *err)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < e->phnum; i++) {
		const struct segment *s = &segments[i];
		int r;

		if (s->type != PT_LOAD || !s->memsz)
			continue;
		/* Each fits; that all together do keeps overlapping ones from taking for ever. */
		if (add_overflow(total, s->memsz, &total) || total > b->map->low_ram_end)
			return error_set(err, -ENOSPC,
					 "the kernel's ELF segments do not fit into the machine's "
					 "%llu MiB of memory",
					 (unsigned long long)(b->map->ram_size / MIB));
		r = segment_load(b, s, err);
		if (r < 0)
			return r;
	}
	if (!total)
		return error_set(err, -ENOEXEC, "the kernel's ELF file has nothing to load");
	return 0;
}

/* An entry point that is a virtual address inside a segment is meant to be where that is loaded. */
static uint64_t entry_physical(const struct elf_image *e, const struct segment *segments)
{
	for (unsigned i = 0; i < e->phnum; i++) {
		const struct segment *s = &segments[i];

		if (s->type == PT_LOAD && e->entry >= s->vaddr && e->entry - s->vaddr < s->memsz)
			return e->entry - s->vaddr + s->paddr;
	}
	return e->entry;
}

/* One note (ABI chapter 5, "Note Section"): name and contents are padded to four bytes. */
static uint64_t note_next(struct reader *r)
{
	uint32_t namesz = reader_le32(r), descsz = reader_le32(r), type = reader_le32(r);
	const void *name = reader_take(r, round_up64(namesz, 4));
	const void *desc = reader_take(r, round_up64(descsz, 4));
	struct reader entry;

	if (!name || !desc || type != NOTE_XEN_PHYS32_ENTRY || namesz != 4 ||
	    memcmp(name, "Xen", 4))
		return 0;
	entry = reader_of(desc, descsz);
	return descsz >= 8 ? reader_le64(&entry) : reader_le32(&entry);
}

static int pvh_find(struct boot *b, const struct segment *s, uint64_t *ret, struct error *err)
{
	size_t size = MIN(s->filesz, NOTES_MAX);
	_cleanup_free_ uint8_t *notes = malloc(size ? size : 1);
	struct reader r = reader_of(notes, size);
	int ret_read;

	if (!notes)
		return error_set(err, -ENOMEM, "out of memory");
	ret_read = boot_file_read(&b->kernel, s->offset, notes, size, err);
	if (ret_read < 0)
		return ret_read;
	while (!*ret && reader_left(&r))
		*ret = note_next(&r);
	return 0;
}

int elf_load(struct boot *b, uint64_t *ret_entry, uint64_t *ret_pvh, struct error *err)
{
	struct segment segments[SEGMENTS_MAX];
	struct elf_image e = { 0 };
	uint64_t pvh = 0;
	int r;

	r = header_decode(b, &e, err);
	if (r < 0)
		return r;
	r = segments_read(b, &e, segments, err);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < e.phnum && !pvh; i++) {
		if (segments[i].type != PT_NOTE)
			continue;
		r = pvh_find(b, &segments[i], &pvh, err);
		if (r < 0)
			return r;
	}
	r = segments_load(b, &e, segments, err);
	if (r < 0)
		return r;
	*ret_entry = entry_physical(&e, segments);
	*ret_pvh = pvh;
	return 0;
}
