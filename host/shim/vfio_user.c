// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The server side of the vfio-user protocol (QEMU's docs/interop/vfio-user.rst):
 * the session, the messages, and those that are about the device as a whole.
 *
 * Theory of operation. The client is given a PCI function (vfio_pci.c) without
 * mappable BARs: every access of the guest to it is a REGION_READ or _WRITE. A
 * message that has come whole (front.c) is looked up in the table below, which
 * has the lengths and the number of descriptors that it may have; then its
 * handler runs, and its reply goes out in the place of the request.
 *
 * Doorbells. A write to a queue's doorbell becomes an event on the same eventfd
 * that an ioeventfd of KVM would signal: so the agent can be given the doorbells
 * of its queues, and a client that asks (GET_REGION_IO_FDS) can let KVM ring
 * them. QEMU does not ask; it posts the write (12 us till it is here), and kick
 * suppression hides that under load. A mappable BAR would make QEMU wait for
 * each write, so there is none.
 *
 * Memory (vfio_dma.c) and interrupts (vfio_irq.c) come as descriptors.
 *
 * Not offered: INTx and MSI; migration and dirty pages (ENOTSUP; QEMU lets such
 * a VM migrate all the same, without the device's state); DMA by message.
 *
 * Threat model. The client belongs to the guest's side: a VMM that its guest
 * has taken over may send anything. Lengths and counts are checked before a
 * handler sees them; regions, offsets, vectors and queues pass one gate each;
 * addresses are only used through guest_mem.h. What is malformed ends the
 * session with a line in the log; what is well-formed but cannot be done is
 * answered with an error. Replies are small and never waited for: a client that
 * does not read them loses its session.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/vfio.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "log.h"
#include "shim.h"

#define HDR_LEN sizeof(struct vfu_hdr)
#define VERSION_TEXT_MAX 2048
#define NUM_REGIONS VFIO_PCI_NUM_REGIONS
#define NUM_IRQS VFIO_PCI_NUM_IRQS

struct row {
	const char *name;
	int (*handle)(struct shim *shim);
	uint16_t len_min, len_max; /* of the payload */
	uint8_t fds_max;
	bool often; /* not for the log */
};

static const struct row *find_row(uint16_t command);

int shim_vfio_bad(const struct shim *shim, const char *fmt, ...)
{
	const uint16_t command = shim->vfio.msg.hdr.command;
	const struct row *row = find_row(command);
	char text[160];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (row)
		log_warn("vm %s: front end: %s: %s", shim->conf->vm, row->name, text);
	else
		log_warn("vm %s: front end: command %u: %s", shim->conf->vm,
			 command, text);
	return -EPROTO;
}

static uint32_t payload_len(const struct shim_vfio *v)
{
	return v->msg.hdr.size - HDR_LEN;
}

/* ---- negotiation ---- */

/*
 * The number that a key has in the client's JSON, whatever else is in it; it
 * says what the client can take, so a wrong one harms nobody else.
 */
static uint64_t json_number(const char *text, const char *key, uint64_t otherwise)
{
	const char *at = strstr(text, key);

	if (!at)
		return otherwise;
	at += strlen(key);
	while (isspace((unsigned char)*at))
		at++;
	if (*at++ != ':')
		return otherwise;
	while (isspace((unsigned char)*at))
		at++;
	return isdigit((unsigned char)*at) ? strtoull(at, NULL, 10) : otherwise;
}

static int version(struct shim *shim)
{
	struct shim_vfio *v = &shim->vfio;
	const uint32_t len = payload_len(v) - sizeof(struct vfu_version);
	char *text = (char *)v->msg.payload + sizeof(struct vfu_version);
	struct vfu_version ver;
	uint64_t fds;
	int n;

	memcpy(&ver, v->msg.payload, sizeof(ver));
	if (v->versioned)
		return shim_vfio_bad(shim, "a second time");
	if (ver.major != VFU_MAJOR)
		return shim_vfio_bad(shim, "version %u.%u; this is %u.%u", ver.major,
			   ver.minor, VFU_MAJOR, VFU_MINOR);
	if (len && text[len - 1])
		return shim_vfio_bad(shim, "capabilities without an end");
	/* the default of the protocol */
	fds = len ? json_number(text, "\"max_msg_fds\"", 1) : 1;
	v->client_fds = fds < UNIX_FDS_MAX ? fds : UNIX_FDS_MAX;
	v->versioned = true;
	if (ver.minor > VFU_MINOR)
		ver.minor = VFU_MINOR;
	memcpy(v->msg.payload, &ver, sizeof(ver));
	n = snprintf(text, VERSION_TEXT_MAX,
		     "{\"capabilities\":{\"max_msg_fds\":%d,"
		     "\"max_data_xfer_size\":%d,\"max_dma_maps\":%d,"
		     "\"pgsizes\":4096,\"write_multiple\":true}}",
		     UNIX_FDS_MAX, SHIM_VFIO_XFER_MAX,
		     SHIM_VFIO_BLIND_MAX + GUEST_MEM_REGIONS_MAX);
	v->reply_len = sizeof(ver) + n + 1;
	return 0;
}

/* ---- the device ---- */

static int get_info(struct shim *shim)
{
	struct shim_vfio *v = &shim->vfio;
	struct vfu_device_info info;

	memcpy(&info, v->msg.payload, sizeof(info));
	if (info.argsz < sizeof(info))
		return EINVAL;
	info = (struct vfu_device_info){
		.argsz = sizeof(info),
		.flags = VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI,
		.num_regions = NUM_REGIONS,
		.num_irqs = NUM_IRQS,
	};
	memcpy(v->msg.payload, &info, sizeof(info));
	v->reply_len = sizeof(info);
	return 0;
}

static int get_region_info(struct shim *shim)
{
	struct shim_vfio *v = &shim->vfio;
	struct vfu_region_info info;
	uint64_t size;

	memcpy(&info, v->msg.payload, sizeof(info));
	if (info.argsz < sizeof(info) || info.index >= NUM_REGIONS)
		return EINVAL;
	size = shim_pci_region_size(info.index);
	info = (struct vfu_region_info){
		.argsz = sizeof(info),
		.index = info.index,
		.flags = size ? VFIO_REGION_INFO_FLAG_READ |
					VFIO_REGION_INFO_FLAG_WRITE : 0,
		.size = size,
	};
	memcpy(v->msg.payload, &info, sizeof(info));
	v->reply_len = sizeof(info);
	return 0;
}

/* The doorbells, as many as the client takes descriptors; it goes on writing
 * to the others. */
static int get_region_io_fds(struct shim *shim)
{
	struct shim_vfio *v = &shim->vfio;
	struct vfu_region_io_fds info;
	uint32_t count = 0, room, i;

	memcpy(&info, v->msg.payload, sizeof(info));
	if (info.argsz < sizeof(info) || info.flags || info.count ||
	    info.index >= NUM_REGIONS)
		return EINVAL;
	if (info.index == VFIO_PCI_BAR0_REGION_INDEX)
		count = shim->queue_count < v->client_fds ? shim->queue_count :
							    v->client_fds;
	room = (info.argsz - sizeof(info)) / sizeof(struct vfu_ioeventfd);
	info.count = count;
	info.argsz = sizeof(info) + count * sizeof(struct vfu_ioeventfd);
	memcpy(v->msg.payload, &info, sizeof(info));
	v->reply_len = sizeof(info);
	if (room < count)
		return 0; /* it asks again with more room */
	for (i = 0; i < count; i++) {
		const struct vfu_ioeventfd e = {
			.offset = SHIM_BAR0_NOTIFY + i * SHIM_NOTIFY_STRIDE,
			.size = sizeof(uint16_t),
			.fd_index = i,
			.type = VFU_IO_FD_TYPE_IOEVENTFD,
		};

		memcpy(v->msg.payload + v->reply_len, &e, sizeof(e));
		v->reply_len += sizeof(e);
		v->reply_fds[i] = v->kick_fd[i];
	}
	v->reply_nfds = count;
	return 0;
}

static int reset(struct shim *shim)
{
	shim_virtio_reset(shim);
	return 0;
}

/* ---- regions ---- */

/* The one gate for offsets. */
static bool in_region(const struct vfu_region_access *a)
{
	const uint64_t size = a->region < NUM_REGIONS ?
				      shim_pci_region_size(a->region) : 0;

	return a->count && a->count <= size && a->offset <= size - a->count;
}

static int region_read(struct shim *shim)
{
	struct shim_vfio *v = &shim->vfio;
	struct vfu_region_access a;

	memcpy(&a, v->msg.payload, sizeof(a));
	if (a.count > SHIM_VFIO_XFER_MAX || !in_region(&a))
		return EINVAL;
	shim_pci_read(shim, a.region, a.offset, a.count,
		      v->msg.payload + sizeof(a));
	v->reply_len = sizeof(a) + a.count;
	return 0;
}

static int region_write(struct shim *shim)
{
	struct shim_vfio *v = &shim->vfio;
	struct vfu_region_access a;

	memcpy(&a, v->msg.payload, sizeof(a));
	if (payload_len(v) - sizeof(a) != a.count)
		return shim_vfio_bad(shim, "%zu bytes of data, not %u",
				     payload_len(v) - sizeof(a), a.count);
	if (!in_region(&a))
		return EINVAL;
	shim_pci_write(shim, a.region, a.offset, a.count,
		       v->msg.payload + sizeof(a));
	v->reply_len = sizeof(a);
	return 0;
}

static int write_multi(struct shim *shim)
{
	struct shim_vfio *v = &shim->vfio;
	struct vfu_write_multi m;
	struct vfu_write_one w;
	uint32_t i, n;

	memcpy(&m, v->msg.payload, sizeof(m));
	n = (payload_len(v) - sizeof(m)) / sizeof(w);
	if (m.count != n || payload_len(v) != sizeof(m) + n * sizeof(w))
		return shim_vfio_bad(shim, "%" PRIu64 " writes in %u bytes", m.count,
			   payload_len(v));
	for (i = 0; i < n; i++) {
		struct vfu_region_access a;

		memcpy(&w, v->msg.payload + sizeof(m) + i * sizeof(w), sizeof(w));
		a = (struct vfu_region_access){ w.offset, w.region, w.count };
		if (w.count > sizeof(w.data) || !in_region(&a))
			return EINVAL;
		shim_pci_write(shim, w.region, w.offset, w.count, w.data);
	}
	v->reply_len = sizeof(m);
	return 0;
}

/* ---- the table ---- */

static int not_supported(struct shim *shim)
{
	(void)shim;
	return ENOTSUP;
}

/* lengths and descriptors follow the handler */
#define ROW(command, fn, ...) [VFU_##command] = { #command, fn, __VA_ARGS__ }
#define EXACTLY(type) sizeof(struct type), sizeof(struct type)
#define ANY 0, SHIM_VFIO_PAYLOAD_MAX

static const struct row rows[] = {
	ROW(VERSION, version, sizeof(struct vfu_version),
	    sizeof(struct vfu_version) + VERSION_TEXT_MAX, 0),
	ROW(DMA_MAP, shim_vfio_dma_map, EXACTLY(vfu_dma_map), 1),
	/* a bitmap may be asked for, and is refused */
	ROW(DMA_UNMAP, shim_vfio_dma_unmap, sizeof(struct vfu_dma_unmap),
	    SHIM_VFIO_PAYLOAD_MAX, 0),
	ROW(DEVICE_GET_INFO, get_info, EXACTLY(vfu_device_info), 0),
	ROW(DEVICE_GET_REGION_INFO, get_region_info, EXACTLY(vfu_region_info), 0),
	ROW(DEVICE_GET_REGION_IO_FDS, get_region_io_fds,
	    EXACTLY(vfu_region_io_fds), 0),
	ROW(DEVICE_GET_IRQ_INFO, shim_vfio_get_irq_info, EXACTLY(vfu_irq_info), 0),
	ROW(DEVICE_SET_IRQS, shim_vfio_set_irqs, sizeof(struct vfu_irq_set),
	    sizeof(struct vfu_irq_set) + 4 * SHIM_VFIO_VECTORS_MAX, UNIX_FDS_MAX),
	ROW(REGION_READ, region_read, EXACTLY(vfu_region_access), 0, true),
	ROW(REGION_WRITE, region_write, sizeof(struct vfu_region_access),
	    sizeof(struct vfu_region_access) + SHIM_VFIO_XFER_MAX, 0, true),
	ROW(DMA_READ, not_supported, ANY, 0),
	ROW(DMA_WRITE, not_supported, ANY, 0),
	ROW(DEVICE_RESET, reset, 0, 0, 0),
	ROW(DIRTY_PAGES, not_supported, ANY, 0),
	ROW(REGION_WRITE_MULTI, write_multi, sizeof(struct vfu_write_multi),
	    SHIM_VFIO_PAYLOAD_MAX, 0, true),
	ROW(DEVICE_FEATURE, not_supported, ANY, 0),
	ROW(MIG_DATA_READ, not_supported, ANY, 0),
	ROW(MIG_DATA_WRITE, not_supported, ANY, 0),
};
_Static_assert(sizeof(struct vfu_region_access) + SHIM_VFIO_XFER_MAX <=
		       SHIM_VFIO_PAYLOAD_MAX &&
		       sizeof(struct vfu_version) + VERSION_TEXT_MAX <=
			       SHIM_VFIO_PAYLOAD_MAX &&
		       sizeof(struct vfu_region_io_fds) +
				       UNIX_FDS_MAX * sizeof(struct vfu_ioeventfd) <=
			       SHIM_VFIO_PAYLOAD_MAX,
	       "payloads fit");

static const struct row *find_row(uint16_t command)
{
	if (command >= sizeof(rows) / sizeof(rows[0]) || !rows[command].handle)
		return NULL;
	return &rows[command];
}

/* ---- messages ---- */

static uint32_t msg_len(struct shim *shim)
{
	const uint32_t size = shim->vfio.msg.hdr.size;

	if (size >= HDR_LEN && size <= sizeof(struct shim_vfio_msg))
		return size;
	shim_vfio_bad(shim, "message of %u bytes", size);
	return 0;
}

/* 0, or -EPROTO: the session must end. */
static int check(struct shim *shim, const struct row *row)
{
	const struct shim_vfio *v = &shim->vfio;
	const struct vfu_hdr *hdr = &v->msg.hdr;
	const uint32_t len = payload_len(v);
	const unsigned int nfds = shim->front.nfds;

	if ((hdr->flags & ~VFU_NO_REPLY) != VFU_TYPE_COMMAND)
		return shim_vfio_bad(shim, "flags %#x", hdr->flags);
	if (!v->versioned && hdr->command != VFU_VERSION)
		return shim_vfio_bad(shim, "before VERSION");
	if (row && (len < row->len_min || len > row->len_max))
		return shim_vfio_bad(shim, "payload of %u bytes", len);
	if (nfds > (row ? row->fds_max : 0))
		return shim_vfio_bad(shim, "%u descriptors", nfds);
	return 0;
}

/* error: 0 or an errno. */
static int reply(struct shim *shim, int error)
{
	struct shim_vfio *v = &shim->vfio;
	struct vfu_hdr *hdr = &v->msg.hdr;

	if (error) {
		v->reply_len = 0;
		v->reply_nfds = 0;
	}
	hdr->size = HDR_LEN + v->reply_len;
	hdr->flags = VFU_TYPE_REPLY | (error ? VFU_ERROR : 0);
	hdr->error = error;
	return unix_send_fds(shim->front.fd, &v->msg, hdr->size, v->reply_fds,
			     v->reply_nfds);
}

static int handle(struct shim *shim)
{
	struct shim_vfio *v = &shim->vfio;
	const struct row *row = find_row(v->msg.hdr.command);
	const bool posted = v->msg.hdr.flags & VFU_NO_REPLY;
	int ret;

	ret = check(shim, row);
	if (ret < 0)
		return ret;
	if (row && !row->often)
		log_debug("vm %s: front end: %s, %u bytes, %u descriptors",
			  shim->conf->vm, row->name, payload_len(v),
			  shim->front.nfds);
	v->reply_len = 0;
	v->reply_nfds = 0;
	ret = row ? row->handle(shim) : ENOSYS;
	if (ret < 0)
		return ret;
	if (ret)
		log_debug("vm %s: front end: command %u refused: %s",
			  shim->conf->vm, v->msg.hdr.command, strerror(ret));
	if (posted)
		return 0;
	ret = reply(shim, ret);
	if (ret < 0)
		return shim_vfio_bad(shim, "replying: %s", strerror(-ret));
	return 0;
}

/* ---- the session ---- */

static int begin(struct shim *shim)
{
	struct shim_vfio *v = &shim->vfio;
	unsigned int i;

	for (i = 0; i < shim->queue_count; i++) {
		v->kick_fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (v->kick_fd[i] < 0)
			return -errno;
	}
	v->versioned = false;
	v->client_fds = 1;
	shim_pci_init(shim);
	return 0;
}

static void end(struct shim *shim)
{
	struct shim_vfio *v = &shim->vfio;

	shim_virtio_reset(shim);
	shim_vfio_irqs_close(shim);
	close_fds(v->kick_fd, SHIM_QUEUES_MAX);
	v->blind_count = 0;
}

static int init(struct shim *shim)
{
	struct shim_vfio *v = &shim->vfio;
	unsigned int i;

	shim->front.msg = &v->msg;
	for (i = 0; i < SHIM_QUEUES_MAX; i++)
		v->kick_fd[i] = -1;
	shim_vfio_irqs_init(shim);
	return 0;
}

static void destroy(struct shim *shim)
{
	(void)shim;
}

static void queue_broken(struct shim_queue *q)
{
	shim_virtio_needs_reset(q->shim);
}

/* Rings are given by guest physical address. */
static uint64_t to_gpa(const struct shim *shim, uint64_t addr, uint64_t len)
{
	return guest_mem_at(&shim->mem, addr, len) ? addr : UINT64_MAX;
}

const struct shim_front_ops shim_vfio_user_ops = {
	.name = "vfio-user",
	.hdr_len = HDR_LEN,
	.init = init,
	.destroy = destroy,
	.begin = begin,
	.end = end,
	.msg_len = msg_len,
	.handle = handle,
	.config_changed = shim_virtio_config_changed,
	.queue_broken = queue_broken,
	.may_run = shim_virtio_may_run,
	.to_gpa = to_gpa,
};
