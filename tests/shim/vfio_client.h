/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A VMM and a driver for the vfio-user front door, on top of shim_rig.h: what
 * QEMU's vfio-user-pci and Linux's virtio_pci do, in that order.
 */
#ifndef VFIO_CLIENT_H
#define VFIO_CLIENT_H

#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <linux/virtio_pci.h>

#include "shim_rig.h"
#include "vfio_user_proto.h"

#define BAR0 VFIO_PCI_BAR0_REGION_INDEX
#define BAR1 VFIO_PCI_BAR1_REGION_INDEX
#define CONFIG VFIO_PCI_CONFIG_REGION_INDEX
#define NO_ANSWER (-9999)
#define COMMON(field) offsetof(struct virtio_pci_common_cfg, field)

/* Where the driver found things, from the capabilities. */
struct layout {
	uint32_t common, isr, device, device_len, notify, notify_mult;
	uint8_t vendor, window, msix;
	unsigned int vectors;
};

static struct layout at;
static int config_fd = -1; /* eventfd of the config vector */
static uint16_t next_id;

UNUSED static int vf_send(int fd, uint16_t command, uint32_t flags,
			  const void *payload, uint32_t len, const int *fds,
			  unsigned int nfds)
{
	static struct {
		struct vfu_hdr hdr;
		uint8_t payload[20000];
	} m;

	m.hdr = (struct vfu_hdr){ ++next_id, command, 16 + len, flags, 0 };
	if (len)
		memcpy(m.payload, payload, len);
	return send_raw(fd, &m, 16 + len, fds, nfds);
}

/* Length of the reply's payload; minus the errno that it says; NO_ANSWER. fds:
 * room for 16, or NULL. */
UNUSED static int vf_recv(int fd, uint16_t command, void *payload, uint32_t max,
			  int *fds, unsigned int *nfds)
{
	union {
		char buf[CMSG_SPACE(16 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct vfu_hdr hdr;
	struct iovec iov = { &hdr, sizeof(hdr) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1,
			      .msg_control = control.buf,
			      .msg_controllen = sizeof(control.buf) };
	struct cmsghdr *c;

	if (recvmsg(fd, &msg, MSG_WAITALL | MSG_CMSG_CLOEXEC) != sizeof(hdr))
		return NO_ANSWER;
	c = CMSG_FIRSTHDR(&msg);
	if (nfds)
		*nfds = 0;
	if (c && fds) {
		*nfds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(c), *nfds * sizeof(int));
	}
	if (hdr.id != next_id || hdr.command != command || hdr.size < 16 ||
	    hdr.size - 16 > max || (hdr.flags & ~VFU_ERROR) != VFU_TYPE_REPLY)
		return NO_ANSWER;
	if (hdr.flags & VFU_ERROR)
		return hdr.size == 16 && hdr.error ? -(int)hdr.error : NO_ANSWER;
	if (hdr.size > 16 &&
	    recv(fd, payload, hdr.size - 16, MSG_WAITALL) != (ssize_t)hdr.size - 16)
		return NO_ANSWER;
	return hdr.size - 16;
}

static uint8_t vf_reply[8192];

UNUSED static int vf_call(int fd, uint16_t command, const void *payload,
			  uint32_t len, const int *fds, unsigned int nfds)
{
	if (vf_send(fd, command, 0, payload, len, fds, nfds) < 0)
		return NO_ANSWER;
	return vf_recv(fd, command, vf_reply, sizeof(vf_reply), NULL, NULL);
}

UNUSED static int vf_version(int fd, const char *json)
{
	uint8_t buf[1000] = { 0 };
	const uint32_t len = json ? strlen(json) + 1 : 0;

	memcpy(buf + 4, json ? json : "", len);
	return vf_call(fd, VFU_VERSION, buf, 4 + len, NULL, 0);
}

UNUSED static int vf_hello(const struct vm *vm)
{
	int fd = front_connect(vm);

	if (vf_version(fd, "{ \"capabilities\": { \"max_msg_fds\" : 16,"
			   " \"max_data_xfer_size\": 1048576 } }") < 4)
		bail_out("no VERSION");
	return fd;
}

/* ---- regions ---- */

UNUSED static int vf_read_bytes(int fd, uint32_t region, uint64_t offset,
				void *data, uint32_t len)
{
	const struct vfu_region_access a = { offset, region, len };
	int n = vf_call(fd, VFU_REGION_READ, &a, sizeof(a), NULL, 0);

	if (n < 0)
		return n;
	if (n != (int)(sizeof(a) + len) || memcmp(vf_reply, &a, sizeof(a)))
		return NO_ANSWER;
	memcpy(data, vf_reply + sizeof(a), len);
	return 0;
}

UNUSED static uint64_t vf_read(int fd, uint32_t region, uint64_t offset,
			       uint32_t len)
{
	uint64_t value = 0;

	return vf_read_bytes(fd, region, offset, &value, len) == 0 ?
		       le64toh(value) : UINT64_MAX;
}

UNUSED static int vf_write_bytes(int fd, uint32_t region, uint64_t offset,
				 const void *data, uint32_t len)
{
	struct vfu_region_access a = { offset, region, len };
	uint8_t buf[sizeof(a) + 8192];

	memcpy(buf, &a, sizeof(a));
	memcpy(buf + sizeof(a), data, len);
	return vf_call(fd, VFU_REGION_WRITE, buf, sizeof(a) + len, NULL, 0);
}

UNUSED static int vf_write(int fd, uint32_t region, uint64_t offset, uint32_t len,
			   uint64_t value)
{
	const uint64_t wire = htole64(value);

	return vf_write_bytes(fd, region, offset, &wire, len) ==
			       sizeof(struct vfu_region_access) ? 0 : -1;
}

/* As QEMU does it: nobody waits. */
UNUSED static void vf_post(int fd, uint32_t region, uint64_t offset, uint32_t len,
			   uint64_t value)
{
	struct {
		struct vfu_region_access a;
		uint64_t data;
	} m = { { offset, region, len }, htole64(value) };

	vf_send(fd, VFU_REGION_WRITE, VFU_NO_REPLY, &m, sizeof(m.a) + len, NULL, 0);
}

#define common_read(vm, field, len) vf_read((vm)->sock, BAR0, at.common + COMMON(field), len)
#define common_write(vm, field, len, value) \
	vf_write((vm)->sock, BAR0, at.common + COMMON(field), len, value)

/* ---- memory, interrupts ---- */

UNUSED static int vf_map(int fd, uint64_t gpa, uint64_t size, uint64_t offset,
			 int memfd)
{
	const struct vfu_dma_map m = { sizeof(m), 3, offset, gpa, size };

	return vf_call(fd, VFU_DMA_MAP, &m, sizeof(m), &memfd, memfd >= 0);
}

UNUSED static int vf_unmap(int fd, uint64_t gpa, uint64_t size, uint32_t flags)
{
	const struct vfu_dma_unmap u = { sizeof(u), flags, gpa, size };
	int n = vf_call(fd, VFU_DMA_UNMAP, &u, sizeof(u), NULL, 0);

	return n == sizeof(u) && !memcmp(vf_reply, &u, n) ? 0 : n < 0 ? n : NO_ANSWER;
}

UNUSED static int vf_irqs(int fd, uint32_t flags, uint32_t index, uint32_t start,
			  uint32_t count, const int *fds, unsigned int nfds)
{
	const struct vfu_irq_set s = { sizeof(s), flags, index, start, count };

	return vf_call(fd, VFU_DEVICE_SET_IRQS, &s, sizeof(s), fds, nfds);
}

#define EVENTFDS (VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER)

/* ---- the driver ---- */

/* Walks the capabilities. */
UNUSED static bool vf_enumerate(struct vm *vm)
{
	uint8_t pos = vf_read(vm->sock, CONFIG, PCI_CAPABILITY_LIST, 1);
	unsigned int left = 48;

	memset(&at, 0, sizeof(at));
	for (; pos && left--; pos = vf_read(vm->sock, CONFIG, pos + 1, 1)) {
		struct virtio_pci_cap cap;
		const uint8_t id = vf_read(vm->sock, CONFIG, pos, 1);

		if (id == PCI_CAP_ID_MSIX) {
			at.msix = pos;
			at.vectors = 1 + (vf_read(vm->sock, CONFIG, pos + 2, 2) & 0x7ff);
		}
		if (id != PCI_CAP_ID_VNDR ||
		    vf_read_bytes(vm->sock, CONFIG, pos, &cap, sizeof(cap)) < 0)
			continue;
		switch (cap.cfg_type) {
		case VIRTIO_PCI_CAP_COMMON_CFG:
			at.common = le32toh(cap.offset);
			break;
		case VIRTIO_PCI_CAP_ISR_CFG:
			at.isr = le32toh(cap.offset);
			break;
		case VIRTIO_PCI_CAP_DEVICE_CFG:
			at.device = le32toh(cap.offset);
			at.device_len = le32toh(cap.length);
			break;
		case VIRTIO_PCI_CAP_NOTIFY_CFG:
			at.notify = le32toh(cap.offset);
			at.notify_mult = vf_read(vm->sock, CONFIG, pos + sizeof(cap), 4);
			break;
		case VIRTIO_PCI_CAP_PCI_CFG:
			at.window = pos;
			break;
		case VNET_PCI_CAP_VENDOR_CFG:
			at.vendor = pos;
			break;
		}
	}
	return at.isr && at.device && at.notify && at.vendor && at.window && at.msix;
}

/* ACKNOWLEDGE to FEATURES_OK; what the device says of that. */
UNUSED static bool vf_negotiate(struct vm *vm, uint64_t features)
{
	uint64_t offer;

	common_write(vm, device_status, 1, 0);
	common_write(vm, device_status, 1, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	common_write(vm, device_status, 1,
		     VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	common_write(vm, device_feature_select, 4, 0);
	offer = common_read(vm, device_feature, 4);
	common_write(vm, device_feature_select, 4, 1);
	offer |= common_read(vm, device_feature, 4) << 32;
	features &= offer;
	vm->features = features;
	vm->pv = features & VNET_BIT_MASK(VNET_F_PARAVIRT_BIT);
	common_write(vm, guest_feature_select, 4, 0);
	common_write(vm, guest_feature, 4, (uint32_t)features);
	common_write(vm, guest_feature_select, 4, 1);
	common_write(vm, guest_feature, 4, features >> 32);
	common_write(vm, device_status, 1,
		     VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
			     VIRTIO_CONFIG_S_FEATURES_OK);
	return common_read(vm, device_status, 1) & VIRTIO_CONFIG_S_FEATURES_OK;
}

UNUSED static bool vf_queue(struct vm *vm, unsigned int i, uint16_t vector)
{
	const struct ring_driver *d = &vm->q[i];

	common_write(vm, queue_select, 2, i);
	common_write(vm, queue_size, 2, d->num);
	common_write(vm, queue_desc_lo, 4, (uint32_t)d->desc_gpa);
	common_write(vm, queue_desc_hi, 4, d->desc_gpa >> 32);
	common_write(vm, queue_avail_lo, 4, (uint32_t)d->avail_gpa);
	common_write(vm, queue_avail_hi, 4, d->avail_gpa >> 32);
	common_write(vm, queue_used_lo, 8, d->used_gpa);
	common_write(vm, queue_msix_vector, 2, vector);
	common_write(vm, queue_enable, 2, 1);
	return common_read(vm, queue_msix_vector, 2) == vector &&
	       common_read(vm, queue_enable, 2) == 1 &&
	       common_read(vm, queue_size, 2) == d->num &&
	       common_read(vm, queue_notify_off, 2) == i;
}

/* Eventfds of the first n queues on vectors 1.., of the config on vector 0. */
UNUSED static bool vf_vectors(struct vm *vm, unsigned int n)
{
	int fds[16];
	unsigned int i;

	fds[0] = config_fd;
	for (i = 0; i < n; i++)
		fds[1 + i] = vm->q[i].call_fd;
	return vf_irqs(vm->sock, EVENTFDS, VFIO_PCI_MSIX_IRQ_INDEX, 0, n + 1, fds,
		       n + 1) == 0;
}

/* From ACKNOWLEDGE to DRIVER_OK with the first n queues, their rings new. */
UNUSED static bool vf_driver(struct vm *vm, uint64_t features, unsigned int n)
{
	unsigned int i;

	if (!vf_negotiate(vm, features))
		return false;
	for (i = 0; i < vm->queues; i++)
		ring_driver_destroy(&vm->q[i]);
	vm->queues = n;
	vm->tx_gpa = 0;
	for (i = 0; i < n; i++)
		if (ring_driver_create(&vm->q[i], &vm->mem, RIG_RING,
				       features & VNET_BIT_MASK(
						VIRTIO_RING_F_EVENT_IDX)) < 0)
			return false;
	if (!vf_vectors(vm, n))
		return false;
	common_write(vm, msix_config, 2, 0);
	for (i = 0; i < n; i++)
		if (!vf_queue(vm, i, 1 + i))
			return false;
	common_write(vm, device_status, 1, 0xf);
	return common_read(vm, device_status, 1) == 0xf;
}

/* A session whose driver has come up. */
UNUSED static bool vf_connect(struct vm *vm, uint64_t features, unsigned int n)
{
	if (ring_memory_create(&vm->mem, RIG_GPA, RIG_MEM) < 0)
		return false;
	config_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	vm->sock = vf_hello(vm);
	return vf_map(vm->sock, RIG_GPA, RIG_MEM, 0, vm->mem.fd) == 0 &&
	       vf_enumerate(vm) && vf_driver(vm, features, n);
}

UNUSED static void vf_disconnect(struct vm *vm)
{
	vm_disconnect(vm);
	close(config_fd);
	config_fd = -1;
}

UNUSED static bool vf_block(struct vm *vm, struct vnet_vendor_block *b)
{
	return vf_read_bytes(vm->sock, BAR0, at.device + VNET_VENDOR_CONFIG_OFFSET,
			     b, sizeof(*b)) == 0;
}

/* The doorbell as a message. */
UNUSED static void vf_ring(struct vm *vm, unsigned int i)
{
	vf_post(vm->sock, BAR0, at.notify + i * at.notify_mult, 2, i);
}

/* Sends a frame of a stock driver, doorbell by message; waits for the chain. */
UNUSED static bool vf_transmit(struct vm *vm, const void *bytes, uint32_t len)
{
	struct ring_driver *q = &vm->q[1];
	struct ring_piece piece;
	uint32_t used;

	if (!vm->tx_gpa)
		vm->tx_gpa = ring_memory_alloc(&vm->mem, 256 * 1024, 4096);
	memcpy(ring_memory_at(&vm->mem, vm->tx_gpa), bytes, len);
	piece = (struct ring_piece){ vm->tx_gpa, len };
	if (ring_driver_add(q, &piece, 1, 0, (void *)bytes, 0) < 0)
		return false;
	if (ring_driver_kick(q))
		vf_ring(vm, 1);
	return wait_until(ring_driver_get_used(q, &used));
}

UNUSED static bool signalled(int fd)
{
	eventfd_t n;

	return eventfd_read(fd, &n) == 0;
}

#endif /* VFIO_CLIENT_H */
