// SPDX-License-Identifier: GPL-2.0-or-later
/* Many connections: open at once and all alive, then opened and closed in a row. */
#include "sock_common.h"

/* Both ends may be in one guest, with no more receive buffers than a small ring has. */
#define AT_ONCE 60
#define IN_A_ROW 300

static void client(void)
{
	int fd[AT_ONCE], i, round;
	char buf[3000], back[3000];

	for (i = 0; i < AT_ONCE; i++)
		fd[i] = call(ECHO);
	for (round = 0; round < 3; round++) {
		for (i = 0; i < AT_ONCE; i++) {
			memset(buf, i + round, sizeof(buf));
			write_all(fd[i], buf, sizeof(buf));
		}
		for (i = AT_ONCE - 1; i >= 0; i--) {
			check(read_full(fd[i], back, sizeof(back)) == sizeof(back));
			memset(buf, i + round, sizeof(buf));
			check(!memcmp(buf, back, sizeof(back)));
		}
	}
	for (i = 0; i < AT_ONCE; i++)
		close(fd[i]);
	for (i = 0; i < IN_A_ROW; i++) {
		int one = call(ECHO);

		write_all(one, &i, sizeof(i));
		check(read_full(one, &round, sizeof(round)) == sizeof(round) && round == i);
		close(one);
	}
}
