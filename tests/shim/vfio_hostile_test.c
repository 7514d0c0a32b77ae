// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a vfio-user client may not do: malformed messages end its session, bad
 * requests are answered with an error, and after each the shim serves the next
 * one with nothing left open.
 */
#include "vfio_client.h"

static struct vm a;

static const char body[] =
	"tenant 77\nmtu 9000\nencap vxlan\n"
	"link peer udp local 127.0.0.1:21050 remote 127.0.0.1:21051\n"
	"route dst any link peer\n";

static unsigned int open_fds(pid_t pid)
{
	char path[64];
	unsigned int n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

static bool at_end(int fd)
{
	uint8_t byte[64];
	ssize_t n;

	do {
		n = recv(fd, byte, sizeof(byte), 0);
	} while (n > 0);
	return n == 0 || (n < 0 && errno == ECONNRESET);
}

/* A message in a session of its own; true if it ended that. */
static bool ends_raw(bool hello, const struct vfu_hdr *hdr, const void *payload,
		     uint32_t len, unsigned int nfds)
{
	struct {
		struct vfu_hdr hdr;
		uint8_t payload[8192];
	} m = { *hdr, { 0 } };
	int fd = hello ? vf_hello(&a) : front_connect(&a);
	int fds[20], i;
	bool result;

	if (len)
		memcpy(m.payload, payload, len);
	for (i = 0; i < (int)nfds; i++)
		fds[i] = eventfd(0, EFD_CLOEXEC);
	if (send_raw(fd, &m, sizeof(m.hdr) + len, fds, nfds) < 0)
		bail_out("cannot send");
	for (i = 0; i < (int)nfds; i++)
		close(fds[i]);
	result = at_end(fd);
	close(fd);
	return result;
}

static bool ends(uint16_t command, const void *payload, uint32_t len,
		 unsigned int nfds)
{
	const struct vfu_hdr hdr = { 7, command, 16 + len, 0, 0 };

	return ends_raw(true, &hdr, payload, len, nfds);
}

static void malformed(void)
{
	static uint8_t junk[8000];
	const unsigned int fds = open_fds(a.pid);
	struct vfu_hdr h = { 1, VFU_DEVICE_GET_INFO, 16 + 16, 0, 0 };
	struct vfu_region_access w = { 0, BAR0, 4 };
	struct {
		struct vfu_irq_set s;
		uint8_t data[8];
	} irq = { { 20, EVENTFDS, VFIO_PCI_MSIX_IRQ_INDEX, 0, 2 }, { 0 } };
	struct {
		struct vfu_write_multi m;
		struct vfu_write_one w;
	} multi = { { 2 }, { 0, BAR0, 4, { 0 } } };
	const uint16_t major1[2] = { 1, 0 };

	ok(ends_raw(false, &h, junk, 16, 0), "anything before VERSION");
	h = (struct vfu_hdr){ 1, VFU_VERSION, 16 + 4, 0, 0 };
	ok(ends_raw(false, &h, major1, 4, 0), "major version 1");
	ok(ends_raw(true, &h, junk, 4, 0), "VERSION twice");
	h.size = 16 + 7;
	ok(ends_raw(false, &h, "\0\0\0\0{}x", 7, 0), "capabilities without an end");
	h.size = 16 + 3;
	ok(ends_raw(false, &h, junk, 3, 0), "half a VERSION");
	h.size = 16 + 3000;
	ok(ends_raw(false, &h, junk, 3000, 0), "3000 bytes of capabilities");
	h = (struct vfu_hdr){ 1, VFU_DEVICE_RESET, 15, 0, 0 };
	ok(ends_raw(true, &h, NULL, 0, 0), "a message of 15 bytes");
	h.size = 0;
	ok(ends_raw(true, &h, NULL, 0, 0), "of none");
	h.size = 0xffffffff;
	ok(ends_raw(true, &h, NULL, 0, 0), "of 4 GB");
	h.size = 16;
	h.flags = VFU_TYPE_REPLY;
	ok(ends_raw(true, &h, NULL, 0, 0), "a reply that nobody waits for");
	h.flags = 0x40;
	ok(ends_raw(true, &h, NULL, 0, 0), "an unknown flag");
	h.flags = VFU_ERROR;
	ok(ends_raw(true, &h, NULL, 0, 0), "a command that failed");
	h.flags = VFU_NO_REPLY;
	h.size = 20;
	ok(ends_raw(true, &h, junk, 4, 0), "a reset with a payload, posted");
	ok(ends(VFU_DEVICE_GET_INFO, junk, 12, 0), "GET_INFO too short");
	ok(ends(VFU_DEVICE_GET_INFO, junk, 20, 0), "GET_INFO too long");
	ok(ends(VFU_DEVICE_GET_INFO, junk, 16, 1), "with a descriptor");
	ok(ends(VFU_DEVICE_GET_REGION_INFO, junk, 31, 0), "GET_REGION_INFO too short");
	ok(ends(VFU_DEVICE_GET_REGION_IO_FDS, junk, 17, 0), "GET_REGION_IO_FDS too long");
	ok(ends(VFU_DEVICE_GET_IRQ_INFO, junk, 15, 0), "GET_IRQ_INFO too short");
	ok(ends(VFU_DMA_MAP, junk, 31, 1), "DMA_MAP too short");
	ok(ends(VFU_DMA_MAP, junk, 32, 2), "DMA_MAP with two descriptors");
	ok(ends(VFU_DMA_UNMAP, junk, 23, 0), "DMA_UNMAP too short");
	ok(ends(VFU_DMA_UNMAP, junk, 24, 1), "DMA_UNMAP with a descriptor");
	ok(ends(VFU_REGION_READ, &w, 12, 0), "REGION_READ too short");
	ok(ends(VFU_REGION_READ, junk, 20, 0), "REGION_READ with data");
	ok(ends(VFU_REGION_WRITE, &w, sizeof(w), 0), "REGION_WRITE without data");
	w.count = 0xffffffff;
	ok(ends(VFU_REGION_WRITE, &w, sizeof(w), 0), "REGION_WRITE of 4 GB");
	memcpy(junk, &w, sizeof(w));
	ok(ends(VFU_REGION_WRITE, junk, sizeof(w) + 4097, 0), "of more than 4096 bytes");
	memset(junk, 0, sizeof(junk));
	ok(ends(VFU_REGION_WRITE_MULTI, &multi, sizeof(multi), 0),
	   "two writes in the place of one");
	multi.m.count = 0;
	ok(ends(VFU_REGION_WRITE_MULTI, &multi, sizeof(multi), 0), "none in the place of one");
	multi.m.count = 0xaaaaaaaaaaaaaab;
	ok(ends(VFU_REGION_WRITE_MULTI, &multi, sizeof(multi), 0), "a count that wraps");
	ok(ends(VFU_REGION_WRITE_MULTI, &multi, 4, 0), "half a count");
	ok(ends(VFU_DEVICE_SET_IRQS, &irq, 19, 0), "SET_IRQS too short");
	ok(ends(VFU_DEVICE_SET_IRQS, &irq, 20, 1), "one descriptor for two vectors");
	irq.s.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
	ok(ends(VFU_DEVICE_SET_IRQS, &irq, 20, 1), "a descriptor for none");
	irq.s.flags = VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_ACTION_TRIGGER;
	ok(ends(VFU_DEVICE_SET_IRQS, &irq, 21, 0), "one bool for two vectors");
	ok(ends(999, junk, 16, 1), "an unknown command with a descriptor");
	ok(vm_stat(&a, "front_errors") >= 37, "each was counted");
	is_int(open_fds(a.pid), fds, "no descriptor is left open");
}

static int set_irqs(int fd, uint32_t flags, uint32_t index, uint32_t start,
		    uint32_t count)
{
	return vf_irqs(fd, flags, index, start, count, NULL, 0);
}

/* Answered with an error, and the session goes on. */
static void refused(void)
{
	const uint32_t trigger = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
	const uint32_t msix = VFIO_PCI_MSIX_IRQ_INDEX;
	struct vfu_region_info r = { .argsz = 32, .index = 9 };
	struct vfu_irq_info irq = { .argsz = 16, .index = 5 };
	struct vfu_region_io_fds io = { .argsz = 16, .index = 9 };
	struct vfu_dma_map m = { 32, 3, 0, 0x1000, 0 };
	struct vfu_region_access acc = { 0, BAR0, 4096 + 1 };
	struct {
		struct vfu_write_multi m;
		struct vfu_write_one w;
	} multi = { { 1 }, { 0x3ffd, BAR0, 4, { 0 } } };
	static const struct {
		uint32_t region;
		uint64_t offset;
		uint32_t len;
	} outside[] = {
		{ BAR0, 0x3fff, 2 },	   { BAR0, 0x4000, 1 },
		{ BAR0, UINT64_MAX, 1 },   { BAR0, UINT64_MAX - 3, 4 },
		{ BAR1, 0xffd, 4 },	   { CONFIG, 256, 1 },
		{ CONFIG, 255, 2 },	   { CONFIG, 0, 257 },
		{ BAR0, 0, 0 },		   { 2, 0, 1 },
		{ 8, 0, 1 },		   { 9, 0, 1 },
		{ 0xffffffff, 0, 1 },
	};
	uint8_t byte[300] = { 0 };
	unsigned int i;
	bool good = true;
	int fd = vf_hello(&a);

	for (i = 0; i < sizeof(outside) / sizeof(outside[0]); i++)
		if (vf_read_bytes(fd, outside[i].region, outside[i].offset, byte,
				  outside[i].len) != -EINVAL ||
		    vf_write_bytes(fd, outside[i].region, outside[i].offset, byte,
				   outside[i].len) != -EINVAL) {
			note("case %u", i);
			good = false;
		}
	ok(good, "accesses at and beyond the ends of regions");
	is_int(vf_call(fd, VFU_REGION_READ, &acc, sizeof(acc), NULL, 0), -EINVAL,
	       "a read of more than max_data_xfer_size");
	ok(vf_read(fd, BAR0, 1, 3) == 0 && vf_read(fd, BAR0, 17, 2) != UINT64_MAX &&
		   vf_read(fd, CONFIG, 1, 5) == 0x0000000010411aull,
	   "reads that are not aligned are served");
	acc = (struct vfu_region_access){ 0, BAR0, 4096 };
	ok(vf_call(fd, VFU_REGION_READ, &acc, sizeof(acc), NULL, 0) == 16 + 4096 &&
		   (acc.offset = 0x3000,
		    vf_call(fd, VFU_REGION_READ, &acc, sizeof(acc), NULL, 0)) ==
			   16 + 4096,
	   "large ones too");
	memset(byte, 0xff, sizeof(byte));
	good = true;
	for (i = 0; i < 0x60; i++)
		good &= vf_write_bytes(fd, BAR0, i, byte, 1 + i % 9) == 16;
	ok(good && vf_write_bytes(fd, BAR0, 0x2ff0, byte, 256) == 16 &&
		   vf_write_bytes(fd, BAR0, 0x3001, byte, 2) == 16 &&
		   vf_write_bytes(fd, BAR0, 0x3ffc, byte, 4) == 16 &&
		   vf_write_bytes(fd, BAR1, 0, byte, 256) == 16 &&
		   vf_write_bytes(fd, CONFIG, 0, byte, 256) == 16,
	   "writes of any length anywhere do no harm");
	ok(vf_call(fd, VFU_REGION_WRITE_MULTI, &multi, sizeof(multi), NULL, 0) == -EINVAL &&
		   (multi.w.offset = 0, multi.w.count = 9,
		    vf_call(fd, VFU_REGION_WRITE_MULTI, &multi, sizeof(multi), NULL, 0)) ==
			   -EINVAL,
	   "the same in a WRITE_MULTI");
	ok(vf_call(fd, VFU_DEVICE_GET_REGION_INFO, &r, 32, NULL, 0) == -EINVAL &&
		   vf_call(fd, VFU_DEVICE_GET_IRQ_INFO, &irq, 16, NULL, 0) == -EINVAL &&
		   vf_call(fd, VFU_DEVICE_GET_REGION_IO_FDS, &io, 16, NULL, 0) == -EINVAL,
	   "regions and interrupts that do not exist");
	r = (struct vfu_region_info){ .argsz = 31 };
	ok(vf_call(fd, VFU_DEVICE_GET_REGION_INFO, &r, 32, NULL, 0) == -EINVAL,
	   "no room for the answer");
	ok(set_irqs(fd, trigger, msix, 5, 0) == -EINVAL &&
		   set_irqs(fd, trigger, msix, 0, 5) == -EINVAL &&
		   set_irqs(fd, trigger, msix, 1, 0xffffffff) == -EINVAL &&
		   set_irqs(fd, trigger, msix, 0xffffffff, 1) == -EINVAL &&
		   set_irqs(fd, trigger, VFIO_PCI_INTX_IRQ_INDEX, 0, 1) == -EINVAL &&
		   set_irqs(fd, trigger, 5, 0, 0) == -EINVAL,
	   "vectors that do not exist");
	ok(set_irqs(fd, VFIO_IRQ_SET_DATA_NONE, msix, 0, 1) == -EINVAL &&
		   set_irqs(fd, 0x3f, msix, 0, 1) == -EINVAL &&
		   set_irqs(fd, trigger | 0x40, msix, 0, 1) == -EINVAL &&
		   set_irqs(fd, 0, msix, 0, 1) == -EINVAL &&
		   set_irqs(fd, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_MASK,
			    msix, 0, 1) == -ENOTSUP,
	   "actions that do not exist");
	ok(set_irqs(fd, trigger, msix, 0, 4) == 0, "vectors without eventfds may fire");
	ok(vf_call(fd, VFU_DMA_MAP, &m, 32, NULL, 0) == -EINVAL &&
		   (m.size = UINT64_MAX,
		    vf_call(fd, VFU_DMA_MAP, &m, 32, NULL, 0)) == -EINVAL &&
		   (m.size = 4096, m.flags = 8,
		    vf_call(fd, VFU_DMA_MAP, &m, 32, NULL, 0)) == -EINVAL,
	   "windows of no size, past the end, with unknown flags");
	m = (struct vfu_dma_map){ 32, 3, UINT64_MAX - 4095, 0x1000, 0x1000 };
	ok(vf_call(fd, VFU_DMA_MAP, &m, 32, (int[]){ a.log_fd }, 1) == -EINVAL,
	   "an offset past the end");
	ok(vf_unmap(fd, 0x1000, 0x1000, 4) == -EINVAL, "unmapping with unknown flags");
	for (i = 0; vf_map(fd, i * 0x1000ull, 0x1000, 0, -1) == 0; i++)
		;
	ok(i >= 32 && i < 1000, "windows are bounded: %u", i);
	close(fd);
}

/* A client that asks and does not listen. */
static void deaf(void)
{
	const struct vfu_region_access acc = { 0, BAR0, 4096 };
	int fd = vf_hello(&a), flags = fcntl(fd, F_GETFL);
	unsigned int i;

	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	ok(wait_until(vf_send(fd, VFU_REGION_READ, 0, &acc, sizeof(acc), NULL, 0) < 0 &&
		      errno != EAGAIN),
	   "a client that does not read its replies loses its session");
	close(fd);
	fd = vf_hello(&a);
	for (i = 0; i < 1000; i++)
		vf_post(fd, BAR0, 0x3004, 2, 1);
	ok(vf_read(fd, CONFIG, 0, 2) == 0x1af4, "1000 doorbells of no queue that runs");
	close(fd);
}

static void slow(void)
{
	const struct vfu_hdr h = { 5, VFU_DEVICE_RESET, 16, 0, 0 };
	const struct {
		struct vfu_hdr h;
		uint16_t version[2];
	} v = { { 4, VFU_VERSION, 20, 0, 0 }, { 0, 9 } };
	uint8_t answer[600];
	int fd = front_connect(&a);
	unsigned int i;

	for (i = 0; i < sizeof(v); i++)
		send_raw(fd, (const uint8_t *)&v + i, 1, NULL, 0);
	ok(recv(fd, answer, 20, MSG_WAITALL) == 20 && answer[16] == 0 &&
		   answer[18] == 1,
	   "a VERSION in 20 pieces, and a minor version that is not ours");
	send_raw(fd, &h, 9, NULL, 0);
	close(fd);
	fd = vf_hello(&a);
	ok(vf_read(fd, CONFIG, 0, 2) == 0x1af4,
	   "half a message and the end, then the next client");
	close(fd);
}

/* Interrupts into what is no eventfd. */
static void strange_descriptors(void)
{
	int fds[3], pipes[2];

	a.sock = vf_hello(&a);
	if (pipe2(pipes, O_CLOEXEC) < 0)
		bail_out("pipe");
	fds[0] = pipes[1];
	fds[1] = open("/dev/null", O_RDWR | O_CLOEXEC);
	fds[2] = a.log_fd;
	ok(vf_irqs(a.sock, EVENTFDS, VFIO_PCI_MSIX_IRQ_INDEX, 0, 2, fds, 2) == 0,
	   "a pipe and a device as eventfds");
	close(pipes[0]);
	ok(set_irqs(a.sock, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
		    VFIO_PCI_MSIX_IRQ_INDEX, 0, 2) == 0 &&
		   vf_read(a.sock, CONFIG, 0, 2) == 0x1af4,
	   "firing them harms nobody");
	close(pipes[1]);
	close(fds[1]);
	close(a.sock);
	a.sock = -1;
}

/* Rings anywhere but in memory. */
static void bad_rings(void)
{
	ok(vf_connect(&a, STOCK_FEATURES, 3), "a good client after all those");
	vf_negotiate(&a, STOCK_FEATURES);
	a.q[0].desc_gpa = 0;
	vf_queue(&a, 0, 1);
	common_write(&a, device_status, 1, 0xf);
	is_int(common_read(&a, device_status, 1), 0x4f,
	       "a ring outside memory: the device needs a reset");
	vf_negotiate(&a, STOCK_FEATURES);
	a.q[0].desc_gpa = RIG_GPA + RIG_MEM - 16;
	vf_queue(&a, 0, 1);
	common_write(&a, device_status, 1, 0xf);
	is_int(common_read(&a, device_status, 1), 0x4f, "one that sticks out");
	vf_negotiate(&a, STOCK_FEATURES);
	a.q[0].desc_gpa = RIG_GPA + 8;
	vf_queue(&a, 0, 1);
	common_write(&a, device_status, 1, 0xf);
	is_int(common_read(&a, device_status, 1), 0x4f, "one that is not aligned");
	ok(vf_driver(&a, STOCK_FEATURES, 3), "and a good one again");
	vf_disconnect(&a);
}

int main(void)
{
	rig_init();
	rig_door = "vfio-user";
	vm_start(&a, "a", 1, body);
	malformed();
	refused();
	deaf();
	slow();
	strange_descriptors();
	bad_rings();
	ok(vm_stop(&a) == 0, "the shim ends well");
	rig_done();
	return tap_done();
}
