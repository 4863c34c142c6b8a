// SPDX-License-Identifier: MIT
/* "Did you mean": the distance of two words in insertions, deletions, changes and swaps. Pure. */
#include "cli/command.h"

#include <string.h>

#define WORD_MAX 48

static unsigned least(unsigned a, unsigned b, unsigned c)
{
	return MIN(MIN(a, b), c);
}

/* Optimal string alignment; words that are longer than any of ours are far from all. */
static unsigned distance(const char *a, const char *b)
{
	unsigned rows[3][WORD_MAX + 1];
	size_t n = strlen(a), m = strlen(b);

	if (n > WORD_MAX || m > WORD_MAX)
		return WORD_MAX;
	for (size_t j = 0; j <= m; j++)
		rows[0][j] = (unsigned)j;
	for (size_t i = 1; i <= n; i++) {
		unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3], *top = rows[(i + 1) % 3];

		row[0] = (unsigned)i;
		for (size_t j = 1; j <= m; j++) {
			row[j] = least(above[j] + 1, row[j - 1] + 1,
				       above[j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				row[j] = MIN(row[j], top[j - 2] + 1);
		}
	}
	return rows[n % 3][m];
}

void nearest_try(struct nearest *n, const char *candidate)
{
	size_t length = strlen(n->word);
	unsigned d = distance(n->word, candidate);

	/* what was begun rightly is nearer than what was mistyped as often */
	if (length >= 2 && !strncmp(n->word, candidate, length))
		d = 1;
	if (d <= 1 + length / 4 && d < length && (!n->best || d < n->distance)) {
		n->best = candidate;
		n->distance = d;
	}
}
