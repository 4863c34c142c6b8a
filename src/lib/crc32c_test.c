// SPDX-License-Identifier: MIT
/* CRC-32C: the published check value, chaining, and both implementations against each other. */
#include "lib/crc32c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void test_check_value(void **state)
{
	(void)state;
	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
	assert_int_equal(crc32c_portable(0, "123456789", 9), 0xe3069283);
	assert_int_equal(crc32c(0, NULL, 0), 0);
}

/* RFC 3720 appendix B.4: 32 bytes of zeros, of ones, and counting up. */
static void test_iscsi_vectors(void **state)
{
	uint8_t b[32];

	(void)state;
	memset(b, 0, sizeof(b));
	assert_int_equal(crc32c(0, b, sizeof(b)), 0x8a9136aa);
	memset(b, 0xff, sizeof(b));
	assert_int_equal(crc32c(0, b, sizeof(b)), 0x62a8ab43);
	for (uint8_t i = 0; i < sizeof(b); i++)
		b[i] = i;
	assert_int_equal(crc32c(0, b, sizeof(b)), 0x46dd794e);
}

static void test_all_splits(void **state)
{
	uint8_t b[300];
	uint32_t whole;

	(void)state;
	for (size_t i = 0; i < sizeof(b); i++)
		b[i] = (uint8_t)(i * 7 + (i >> 3));
	whole = crc32c(0, b, sizeof(b));
	for (size_t i = 0; i <= sizeof(b); i++) {
		assert_int_equal(crc32c(crc32c(0, b, i), b + i, sizeof(b) - i), whole);
		assert_int_equal(crc32c(0, b, i), crc32c_portable(0, b, i));
		assert_int_equal(crc32c(0, b + i, sizeof(b) - i),
				 crc32c_portable(0, b + i, sizeof(b) - i));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_check_value),
		cmocka_unit_test(test_iscsi_vectors),
		cmocka_unit_test(test_all_splits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
