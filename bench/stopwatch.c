// SPDX-License-Identifier: MIT
/*
 * stopwatch COMMAND [ARGUMENT...]: starts a monitor and watches its guest's console, which is the
 * command's stdout. Prints a line for each line there that begins with "partita-guest:" or
 * "guest_io:", as soon as it is there:
 *
 *   mark SECONDS EXITS IO_EXITS MMIO_EXITS HALT_EXITS LINE
 *
 * with the time since just before the command was started, and KVM's counters of all machines
 * ("exits" are all that left the guest, those that the kernel handled too). All other lines go to
 * stderr. The exit status is the command's. Runs in the lab, linked statically.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *const counters[] = { "exits", "io_exits", "mmio_exits", "halt_exits" };
#define COUNTERS (sizeof(counters) / sizeof(counters[0]))

static struct timespec start;

static double elapsed(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)(ts.tv_sec - start.tv_sec) + (double)(ts.tv_nsec - start.tv_nsec) / 1e9;
}

/* The files cannot be read twice through one descriptor. */
static unsigned long long read_counter(const char *name)
{
	char path[64], text[32] = "";
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/debug/kvm/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	return n > 0 ? strtoull(text, NULL, 10) : 0;
}

static void handle_line(double when, const char *line)
{
	if (strncmp(line, "partita-guest:", 14) && strncmp(line, "guest_io:", 9)) {
		fprintf(stderr, "%s\n", line);
		return;
	}
	printf("mark %.6f", when);
	for (size_t i = 0; i < COUNTERS; i++)
		printf(" %llu", read_counter(counters[i]));
	printf(" %s\n", line);
	fflush(stdout);
}

static void watch(int fd)
{
	static char line[4096];
	size_t used = 0;
	char chunk[512];
	ssize_t n;

	while ((n = read(fd, chunk, sizeof(chunk))) > 0 || (n < 0 && errno == EINTR)) {
		double when = elapsed();

		for (ssize_t i = 0; i < n; i++) {
			if (chunk[i] == '\n') {
				line[used] = 0;
				handle_line(when, line);
				used = 0;
			} else if (chunk[i] != '\r' && used < sizeof(line) - 1) {
				line[used++] = chunk[i];
			}
		}
	}
}

int main(int argc, char **argv)
{
	int console[2], status;
	pid_t pid;

	if (argc < 2 || pipe(console) < 0) {
		fputs("usage: stopwatch COMMAND [ARGUMENT...]\n", stderr);
		return 2;
	}
	clock_gettime(CLOCK_MONOTONIC, &start);
	pid = fork();
	if (!pid) {
		dup2(console[1], STDOUT_FILENO);
		close(console[0]);
		close(console[1]);
		execvp(argv[1], argv + 1);
		perror(argv[1]);
		_exit(127);
	}
	close(console[1]);
	watch(console[0]);
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return 125;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
