/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How many descriptors this process has open: what leaked? */
#ifndef FD_COUNT_H
#define FD_COUNT_H

#include <dirent.h>

static inline int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	if (!dir)
		return -1;
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

#endif /* FD_COUNT_H */
