/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fields of structs, written or compared: what abi_test.c names them with.
 */
#ifndef PROTO_ABI_FIELDS_H
#define PROTO_ABI_FIELDS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "tap.h"

static bool reading;
static unsigned int wrong; /* fields that did not read as they should */

static void bytes_field(void *field, const void *bytes, size_t len,
			const char *name)
{
	if (!reading) {
		memcpy(field, bytes, len);
	} else if (memcmp(field, bytes, len) != 0) {
		note("%s reads differently", name);
		wrong++;
	}
}

static void number_field(void *field, size_t len, bool big, uint64_t value,
			 const char *name)
{
	uint8_t bytes[8];
	size_t i;

	for (i = 0; i < len; i++)
		bytes[big ? len - 1 - i : i] = value >> (8 * i);
	bytes_field(field, bytes, len, name);
}

#define FIELD(field, bits, big, value)                                      \
	do {                                                                \
		_Static_assert(8 * sizeof(field) == (bits), "width: " #field); \
		number_field(&(field), sizeof(field), big, value, #field);  \
	} while (0)
#define U8(field, value) FIELD(field, 8, false, value)
#define LE16(field, value) FIELD(field, 16, false, value)
#define LE32(field, value) FIELD(field, 32, false, value)
#define LE64(field, value) FIELD(field, 64, false, value)
#define BE16(field, value) FIELD(field, 16, true, value)
#define BE32(field, value) FIELD(field, 32, true, value)
#define NATIVE32(field, value) \
	FIELD(field, 32, __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__, value)
#define BYTES(field, string) \
	bytes_field(&(field), string, sizeof(string) - 1, #field)

#endif /* PROTO_ABI_FIELDS_H */
