// SPDX-License-Identifier: GPL-2.0-or-later
/* Mapping guest memory, and the accessor at every edge of two regions. */
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fd_count.h"
#include "guest_mem.h"
#include "tap.h"

#define PAGE 4096ull

static int new_file(uint64_t size)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, size))
		bail_out("memfd");
	return fd;
}

static void test_add(void)
{
	struct guest_mem mem;
	int before = count_fds();
	unsigned int i;

	guest_mem_init(&mem);
	is_int(guest_mem_add(&mem, 0, 0, 0, 0, new_file(PAGE)), -EINVAL,
	       "size 0");
	is_int(guest_mem_add(&mem, 0, PAGE + 1, 0, 0, new_file(PAGE)), -EINVAL,
	       "file too short");
	is_int(guest_mem_add(&mem, 0, PAGE, 0, 1, new_file(PAGE)), -EINVAL,
	       "file too short for the offset");
	is_int(guest_mem_add(&mem, UINT64_MAX - PAGE + 1, PAGE, 0, 0,
			     new_file(PAGE)),
	       -EINVAL, "address overflows");
	is_int(guest_mem_add(&mem, 0, PAGE, 0, UINT64_MAX - PAGE + 1,
			     new_file(PAGE)),
	       -EINVAL, "offset overflows");
	is_int(guest_mem_add(&mem, 0, UINT64_MAX, 0, 0, new_file(PAGE)),
	       -EINVAL, "all there is");
	is_int(guest_mem_add(&mem, 0, PAGE, 0, 0,
			     open("/dev/null", O_RDWR | O_CLOEXEC)),
	       -ENODEV, "nothing to map");
	is_int(guest_mem_add(&mem, 0, PAGE, 0, 0,
			     open("/proc/self/exe", O_RDONLY | O_CLOEXEC)),
	       -EACCES, "read only");
	is_int(guest_mem_add(&mem, 0, PAGE, 0, 0, -1), -EBADF, "no descriptor");
	is_int(mem.count, 0, "none of them counts");
	is_int(count_fds(), before, "and their descriptors are closed");

	for (i = 0; i < GUEST_MEM_REGIONS_MAX; i++)
		if (guest_mem_add(&mem, 2 * i * PAGE, PAGE, 0, 0,
				  new_file(PAGE)))
			break;
	is_int(i, GUEST_MEM_REGIONS_MAX, "all slots");
	is_int(guest_mem_add(&mem, 100 * PAGE, PAGE, 0, 0, new_file(PAGE)),
	       -ENOSPC, "no more slots");
	guest_mem_clear(&mem);
	ok(mem.count == 0 && count_fds() == before, "clear closes all");
	ok(!guest_mem_at(&mem, 0, 1), "nothing left to reach");
}

static void test_overlap(void)
{
	static const struct {
		uint64_t gpa, size;
		int want;
		const char *name;
	} cases[] = {
		{ 4 * PAGE, 2 * PAGE, -EINVAL, "overlap: the same" },
		{ 3 * PAGE, 2 * PAGE, -EINVAL, "overlap: its start" },
		{ 5 * PAGE, 2 * PAGE, -EINVAL, "overlap: its end" },
		{ 4 * PAGE + 1, 1, -EINVAL, "overlap: within" },
		{ 3 * PAGE, 4 * PAGE, -EINVAL, "overlap: around" },
		{ 3 * PAGE, PAGE, 0, "touching below" },
		{ 6 * PAGE, PAGE, 0, "touching above" },
	};
	struct guest_mem mem;
	unsigned int i;

	guest_mem_init(&mem);
	guest_mem_add(&mem, 4 * PAGE, 2 * PAGE, 0, 0, new_file(2 * PAGE));
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		is_int(guest_mem_add(&mem, cases[i].gpa, cases[i].size, 0, 0,
				     new_file(4 * PAGE)),
		       cases[i].want, cases[i].name);
	guest_mem_clear(&mem);
}

static void test_access(void)
{
	const uint64_t gpa = 0x100000, top = UINT64_MAX - PAGE;
	struct guest_mem mem;
	char *p, *q;
	int fd;

	guest_mem_init(&mem);
	fd = new_file(4 * PAGE);
	if (pwrite(fd, "0123456789", 10, PAGE + 100) != 10)
		bail_out("pwrite");
	/* an offset that is no page boundary */
	is_int(guest_mem_add(&mem, gpa, 2 * PAGE, 0x7000000, PAGE + 100, fd), 0,
	       "region at an odd offset");
	is_int(guest_mem_add(&mem, gpa + 2 * PAGE, PAGE, 0x5000000, 0,
			     new_file(PAGE)),
	       0, "region that meets it");
	is_int(guest_mem_add(&mem, top, PAGE, 0, 0, new_file(PAGE)), 0,
	       "region at the top of the address space");

	p = guest_mem_at(&mem, gpa, 10);
	ok(p && memcmp(p, "0123456789", 10) == 0, "reads the file");
	q = guest_mem_at(&mem, gpa + 2 * PAGE - 1, 1);
	ok(q == p + 2 * PAGE - 1, "last byte");
	ok(guest_mem_at(&mem, gpa, 2 * PAGE) == p, "the whole region");
	ok(!guest_mem_at(&mem, gpa, 0), "length 0");
	ok(!guest_mem_at(&mem, gpa - 1, 1), "below");
	ok(!guest_mem_at(&mem, gpa - 1, 2), "from below into it");
	ok(!guest_mem_at(&mem, gpa, 2 * PAGE + 1), "one too long");
	ok(!guest_mem_at(&mem, gpa + 2 * PAGE - 1, 2), "across two regions");
	ok(guest_mem_at(&mem, gpa + 2 * PAGE, 1), "first byte of the next");
	ok(!guest_mem_at(&mem, gpa + 3 * PAGE, 1), "behind both");
	ok(!guest_mem_at(&mem, gpa, UINT64_MAX), "longest");
	ok(!guest_mem_at(&mem, gpa + 1, UINT64_MAX), "length that wraps");
	ok(guest_mem_at(&mem, top + PAGE - 1, 1), "last byte of the top");
	ok(!guest_mem_at(&mem, top + PAGE - 1, 2), "not beyond it");
	ok(!guest_mem_at(&mem, UINT64_MAX, 1), "the last address");

	ok(guest_mem_user_to_gpa(&mem, 0x7000000, 1) == gpa &&
		   guest_mem_user_to_gpa(&mem, 0x7000000 + 2 * PAGE - 1, 1) ==
			   gpa + 2 * PAGE - 1 &&
		   guest_mem_user_to_gpa(&mem, 0x5000000 + 8, 8) ==
			   gpa + 2 * PAGE + 8,
	   "front-end addresses");
	ok(guest_mem_user_to_gpa(&mem, 0x7000000 + 2 * PAGE - 1, 2) ==
			   UINT64_MAX &&
		   guest_mem_user_to_gpa(&mem, 0x7000000 - 1, 1) == UINT64_MAX &&
		   guest_mem_user_to_gpa(&mem, 0x7000000, 0) == UINT64_MAX &&
		   guest_mem_user_to_gpa(&mem, 0, 1) == UINT64_MAX,
	   "front-end addresses that are none");
	guest_mem_clear(&mem);
}

static void test_remove(void)
{
	struct guest_mem mem;
	int before = count_fds();
	unsigned int i;

	guest_mem_init(&mem);
	for (i = 0; i < 3; i++)
		guest_mem_add(&mem, 2 * i * PAGE, PAGE, 0, 0, new_file(PAGE));
	is_int(guest_mem_remove(&mem, 0, 2 * PAGE), -ENOENT, "another size");
	is_int(guest_mem_remove(&mem, PAGE, PAGE), -ENOENT, "another address");
	is_int(guest_mem_remove(&mem, 0, PAGE), 0, "one region goes");
	ok(!guest_mem_at(&mem, 0, 1) && guest_mem_at(&mem, 2 * PAGE, PAGE) &&
		   guest_mem_at(&mem, 4 * PAGE, PAGE) && mem.count == 2,
	   "the others stay");
	is_int(count_fds(), before + 2, "its descriptor is closed");
	is_int(guest_mem_remove(&mem, 0, PAGE), -ENOENT, "it goes once");
	is_int(guest_mem_add(&mem, 0, PAGE, 0, 0, new_file(PAGE)), 0,
	       "and may come again");
	guest_mem_clear(&mem);
	is_int(count_fds(), before, "clear closes the rest");
}

int main(void)
{
	test_add();
	test_remove();
	test_overlap();
	test_access();
	return tap_done();
}
