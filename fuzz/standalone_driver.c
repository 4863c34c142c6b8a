// SPDX-License-Identifier: MIT
/*
 * Runs a fuzzer's function over files and folders of files, without a fuzzing engine: the corpora
 * become ordinary tests, and a finding can be looked at in a debugger.
 */
#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned files;

static int run_file(FILE *f, const char *path)
{
	size_t size = 0, capacity = 1 << 16;
	uint8_t *data = malloc(capacity);
	size_t n;

	while (data && (n = fread(data + size, 1, capacity - size, f)) > 0) {
		size += n;
		if (size == capacity)
			data = realloc(data, capacity *= 2);
	}
	if (!data || ferror(f)) {
		fprintf(stderr, "%s: cannot be read\n", path);
		free(data);
		return 1;
	}
	/* Exactly as large as the input, so that a read beyond it is seen. */
	data = realloc(data, size ? size : 1);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	files++;
	return 0;
}

static int run_path(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	int r = 0;
	FILE *f;

	if (!dir) {
		f = fopen(path, "rb");
		if (!f) {
			perror(path);
			return 1;
		}
		r = run_file(f, path);
		fclose(f);
		return r;
	}
	while ((entry = readdir(dir))) {
		char name[4096];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		r |= run_path(name);
	}
	closedir(dir);
	return r;
}

int main(int argc, char **argv)
{
	int r = 0;

	for (int i = 1; i < argc; i++)
		r |= run_path(argv[i]);
	printf("%u inputs\n", files);
	return r || !files;
}
