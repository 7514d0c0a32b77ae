// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Runs a fuzz target over files, for builds without libFuzzer: TAP, one line a
 * file. A file that makes the target abort ends the program; its name is the
 * last that was printed as a comment.
 *
 * usage: PROGRAM FILE-OR-DIRECTORY...
 */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"
#include "tap.h"

#define BYTES_MAX (1 << 20)

static void replay_file(const char *path)
{
	/* malloc()ed to its exact size, so that the sanitizer sees an overrun */
	static uint8_t buf[BYTES_MAX];
	FILE *file = fopen(path, "rb");
	uint8_t *data;
	size_t len;

	if (!file) {
		ok(false, "%s: cannot be opened", path);
		return;
	}
	len = fread(buf, 1, sizeof(buf), file);
	fclose(file);
	data = malloc(len ? len : 1);
	if (!data)
		bail_out("out of memory");
	memcpy(data, buf, len);
	note("%s", path);
	fflush(stdout);
	LLVMFuzzerTestOneInput(data, len);
	free(data);
	ok(true, "%s", path);
}

static void replay_dir(const char *path)
{
	struct dirent **entries;
	char name[4096];
	int i, n = scandir(path, &entries, NULL, alphasort);

	for (i = 0; i < n; i++) {
		if (entries[i]->d_name[0] != '.') {
			snprintf(name, sizeof(name), "%s/%s", path,
				 entries[i]->d_name);
			replay_file(name);
		}
		free(entries[i]);
	}
	if (n >= 0)
		free(entries);
}

int main(int argc, char **argv)
{
	struct stat st;
	int i;

	for (i = 1; i < argc; i++) {
		if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode))
			replay_dir(argv[i]);
		else
			replay_file(argv[i]);
	}
	return tap_done();
}
