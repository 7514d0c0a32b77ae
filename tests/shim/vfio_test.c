// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The vfio-user front door: the PCI device as a VMM and a driver see it, frames
 * through it, interrupts, memory that comes and goes, resets, and an agent that
 * has to let go of memory first. What a client may not do: vfio_hostile_test.c.
 */
#include "vfio_client.h"

static struct vm a, b;

static void body(char *text, const char *encap, int me)
{
	sprintf(text,
		"tenant 77\nmtu 9000\nencap %s\n"
		"link peer udp local 127.0.0.1:%d remote 127.0.0.1:%d\n"
		"route dst any link peer\n",
		encap, 21040 + me, 21041 - me);
}

/* ---- the device ---- */

static void session(void)
{
	struct vfu_device_info info = { .argsz = sizeof(info) };
	struct vfu_region_info r;
	struct vfu_irq_info irq;
	bool good = true;
	unsigned int i;

	a.sock = front_connect(&a);
	ok(vf_version(a.sock, "{\"capabilities\":{\"max_msg_fds\":16}}") > 4 &&
		   strstr((char *)vf_reply + 4, "\"max_msg_fds\":16") &&
		   strstr((char *)vf_reply + 4, "\"write_multiple\":true"),
	   "VERSION and capabilities");
	ok(vf_call(a.sock, VFU_DEVICE_GET_INFO, &info, sizeof(info), NULL, 0) ==
			   sizeof(info) &&
		   memcpy(&info, vf_reply, sizeof(info)) &&
		   info.flags == (VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET) &&
		   info.num_regions == VFIO_PCI_NUM_REGIONS &&
		   info.num_irqs == VFIO_PCI_NUM_IRQS,
	   "a PCI device that can be reset");
	for (i = 0; i < VFIO_PCI_NUM_REGIONS; i++) {
		const uint64_t size = i == BAR0 ? 0x4000 : i == BAR1 ? 0x1000 :
				      i == CONFIG ? 256 : 0;

		r = (struct vfu_region_info){ .argsz = sizeof(r), .index = i };
		good &= vf_call(a.sock, VFU_DEVICE_GET_REGION_INFO, &r, sizeof(r),
				NULL, 0) == sizeof(r) &&
			memcpy(&r, vf_reply, sizeof(r)) && r.size == size &&
			r.flags == (size ? 3 : 0) && r.index == i;
	}
	ok(good, "two BARs and config space, none to be mapped");
	for (i = 0; i < VFIO_PCI_NUM_IRQS; i++) {
		irq = (struct vfu_irq_info){ .argsz = sizeof(irq), .index = i };
		good &= vf_call(a.sock, VFU_DEVICE_GET_IRQ_INFO, &irq, sizeof(irq),
				NULL, 0) == sizeof(irq) &&
			memcpy(&irq, vf_reply, sizeof(irq)) &&
			irq.count == (i == VFIO_PCI_MSIX_IRQ_INDEX ? 4 : 0);
	}
	ok(good, "MSI-X vectors: one a queue and one");
	ok(vf_call(a.sock, VFU_DEVICE_FEATURE, &info, 8, NULL, 0) == -ENOTSUP &&
		   vf_call(a.sock, VFU_MIG_DATA_READ, &info, 16, NULL, 0) == -ENOTSUP &&
		   vf_call(a.sock, VFU_DIRTY_PAGES, &info, 8, NULL, 0) == -ENOTSUP,
	   "migration is refused");
	is_int(vf_call(a.sock, 99, &info, 8, NULL, 0), -ENOSYS, "an unknown command too");
}

static void config_space(void)
{
	uint8_t all[256], block[sizeof(struct vnet_pci_vendor_cap)];
	struct virtio_net_config net;
	struct vnet_pci_vendor_cap cap;
	struct vnet_vendor_block dev;
	unsigned int i;

	ok(vf_read(a.sock, CONFIG, 0, 4) == 0x10411af4 &&
		   vf_read(a.sock, CONFIG, PCI_CLASS_REVISION, 4) == 0x02000001 &&
		   vf_read(a.sock, CONFIG, PCI_SUBSYSTEM_VENDOR_ID, 2) == 0x1af4 &&
		   vf_read(a.sock, CONFIG, PCI_SUBSYSTEM_ID, 2) >= 0x40 &&
		   vf_read(a.sock, CONFIG, PCI_INTERRUPT_PIN, 1) == 0,
	   "a modern virtio network device, no INTx");
	ok(vf_enumerate(&a), "every capability is found");
	ok(at.vectors == 4 && at.device_len == 256 && at.notify_mult == 4,
	   "and says what it should");
	vf_write(a.sock, CONFIG, PCI_BASE_ADDRESS_0, 4, 0xffffffff);
	vf_write(a.sock, CONFIG, PCI_BASE_ADDRESS_1, 4, 0xffffffff);
	vf_write(a.sock, CONFIG, PCI_BASE_ADDRESS_2, 4, 0xffffffff);
	ok(vf_read(a.sock, CONFIG, PCI_BASE_ADDRESS_0, 4) == 0xffffc000 &&
		   vf_read(a.sock, CONFIG, PCI_BASE_ADDRESS_1, 4) == 0xfffff000 &&
		   vf_read(a.sock, CONFIG, PCI_BASE_ADDRESS_2, 4) == 0,
	   "BARs say how large they are");
	vf_write(a.sock, CONFIG, PCI_BASE_ADDRESS_0, 8, 0xfebfe000febf8000);
	vf_write(a.sock, CONFIG, PCI_COMMAND, 2, 0xffff);
	vf_write(a.sock, CONFIG, 0, 4, 0);
	ok(vf_read(a.sock, CONFIG, PCI_BASE_ADDRESS_1, 4) == 0xfebfe000 &&
		   vf_read(a.sock, CONFIG, PCI_COMMAND, 2) == 0x406 &&
		   vf_read(a.sock, CONFIG, 0, 2) == 0x1af4,
	   "what may be written is written, what not is not");
	vf_read_bytes(a.sock, BAR0, at.device, &net, sizeof(net));
	ok(!memcmp(net.mac, a.mac, 6) && le16toh(net.mtu) == 9000 &&
		   net.status == htole16(VIRTIO_NET_S_LINK_UP),
	   "device configuration");
	for (i = 0; i < sizeof(block); i++)
		block[i] = vf_read(a.sock, CONFIG, at.vendor + i, 1);
	memcpy(&cap, block, sizeof(cap));
	ok(cap.cap_vndr == 9 && cap.cap_len == sizeof(cap) && cap.cfg_type == 9 &&
		   le16toh(cap.vendor_id) == VNET_PCI_CAP_VENDOR_ID &&
		   !cap.reserved && le32toh(cap.block.magic) == VNET_VENDOR_MAGIC &&
		   le16toh(cap.block.encap_len) == 8,
	   "the vendor capability, byte by byte");
	ok(vf_block(&a, &dev) && !memcmp(&dev, &cap.block, sizeof(dev)),
	   "its block is that of the device configuration");
	vf_read_bytes(a.sock, CONFIG, 0, all, sizeof(all));
	ok(!memcmp(all + at.vendor, block, sizeof(block)), "at once the same");
	vf_read_bytes(a.sock, CONFIG, at.vendor + 3, all, 13);
	ok(!memcmp(all, block + 3, 13), "and any piece of it");
	vf_write(a.sock, CONFIG, at.vendor + 8, 4, 0);
	is_int(vf_read(a.sock, CONFIG, at.vendor + 8, 4), VNET_VENDOR_MAGIC,
	       "it cannot be written");
}

/* BARs through config space. */
static void pci_window(void)
{
	const unsigned int bar = at.window + offsetof(struct virtio_pci_cap, bar);
	const unsigned int off = at.window + offsetof(struct virtio_pci_cap, offset);
	const unsigned int len = at.window + offsetof(struct virtio_pci_cap, length);
	const unsigned int data = at.window + sizeof(struct virtio_pci_cap);

	vf_write(a.sock, CONFIG, bar, 1, 0);
	vf_write(a.sock, CONFIG, off, 4, COMMON(num_queues));
	vf_write(a.sock, CONFIG, len, 4, 2);
	is_int(vf_read(a.sock, CONFIG, data, 2), 3, "window: a register is read");
	vf_write(a.sock, CONFIG, off, 4, COMMON(queue_select));
	vf_write(a.sock, CONFIG, data, 2, 2);
	is_int(common_read(&a, queue_select, 2), 2, "window: and written");
	vf_write(a.sock, CONFIG, off, 4, 0x3ffe);
	vf_write(a.sock, CONFIG, len, 4, 4);
	ok(vf_read(a.sock, CONFIG, data, 4) != UINT64_MAX &&
		   (vf_write(a.sock, CONFIG, bar, 1, 9),
		    vf_read(a.sock, CONFIG, data, 4) != UINT64_MAX),
	   "window: past a BAR and of no BAR, nothing happens");
	vf_write(a.sock, CONFIG, len, 4, 0);
}

static void features(void)
{
	const uint64_t v1 = VNET_BIT_MASK(VIRTIO_F_VERSION_1);

	ok(!vf_negotiate(&a, STOCK_FEATURES & ~v1), "no VERSION_1, no FEATURES_OK");
	common_write(&a, device_status, 1, 0xf);
	is_int(common_read(&a, device_status, 1), 3, "nor DRIVER_OK then");
	ok(vf_negotiate(&a, STOCK_FEATURES), "a stock driver's features");
	common_write(&a, guest_feature_select, 4, 0);
	common_write(&a, guest_feature, 4, 0);
	is_int(common_read(&a, guest_feature, 4), (uint32_t)a.features,
	       "they are fixed then");
	common_write(&a, device_status, 1, 0);
	common_write(&a, device_status, 1, 3);
	common_write(&a, guest_feature_select, 4, 1);
	common_write(&a, guest_feature, 4, 0xffffffff);
	common_write(&a, device_status, 1, 0xb);
	is_int(common_read(&a, device_status, 1), 3, "features that nobody offered");
	common_write(&a, device_status, 1, 0);
	common_write(&a, device_status, 1, 3);
	common_write(&a, guest_feature_select, 4, 1);
	common_write(&a, guest_feature, 4, 1);
	common_write(&a, guest_feature_select, 4, 2);
	common_write(&a, guest_feature, 4, 1);
	common_write(&a, device_status, 1, 0xb);
	is_int(common_read(&a, device_status, 1), 3, "feature 64");
	common_write(&a, queue_select, 2, 77);
	ok(common_read(&a, queue_size, 2) == 0 &&
		   common_read(&a, queue_msix_vector, 2) == 0xffff,
	   "a queue that does not exist has size 0");
	common_write(&a, queue_select, 2, 0);
	common_write(&a, queue_size, 2, 3);
	common_write(&a, queue_msix_vector, 2, 4);
	ok(common_read(&a, queue_size, 2) == 256 &&
		   common_read(&a, queue_msix_vector, 2) == 0xffff,
	   "a size and a vector that cannot be");
	common_write(&a, queue_enable, 2, 1);
	is_int(common_read(&a, queue_enable, 2), 0, "no queue before FEATURES_OK");
	close(a.sock);
}

/* ---- frames ---- */

/* What the shim was doing is done: it answers, and it does one thing at a time. */
static void settle(void)
{
	common_read(&a, num_queues, 2);
}

/* a is the VM behind vfio-user. */
static bool one(bool to_a, uint32_t len, uint8_t seed)
{
	static uint8_t frame[70000], out[70100];
	struct vm *from = to_a ? &b : &a, *to = to_a ? &a : &b;
	static struct frame got;
	struct vnet_vendor_block block;
	uint32_t n;

	make_frame(frame, to->mac, from->mac, len, seed);
	if (to_a && !vm_block(&b, &block))
		return false;
	n = to_a ? make_train(out, &block, frame, len) : make_stock(out, frame, len);
	if (!(to_a ? vm_send(&b, out, n, 4096) : vf_transmit(&a, out, n))) {
		note("not taken");
		return false;
	}
	if (!vm_receive(to, &got) || got.len != len || memcmp(got.data, frame, len)) {
		note("wrong or none: %u bytes of %u", got.len, len);
		return false;
	}
	return true;
}

static void frames(void)
{
	static const uint32_t sizes[] = { 14, 60, 1500, 9014, 60000, 65535 };
	unsigned int i;
	bool good = true;

	ok(vf_connect(&a, STOCK_FEATURES | OFFLOADS, 3), "the driver comes up");
	ok(vm_connect(&b, PV_FEATURES, 3), "a vnet_pv guest over vhost-user");
	vm_post_rx(&a, 128, 2048);
	vf_ring(&a, 0);
	vm_post_rx(&b, 128, 4096);
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && good; i++)
		good = one(true, sizes[i], i) && one(false, sizes[i], i + 1);
	ok(good, "frames of 14 to 65535 bytes both ways, doorbells as messages");
	settle();
	ok(ring_driver_ack_call(&a.q[0]) > 0 && ring_driver_ack_call(&a.q[1]) > 0,
	   "both queues have interrupted by their vectors");
	ok(!signalled(config_fd), "and nobody by the config vector");
}

/* Whether a frame to the guest raises this event. */
static bool interrupts(int fd)
{
	ring_driver_enable_calls(&a.q[0]);
	signalled(fd);
	if (!one(true, 100, 1))
		return false;
	settle();
	return signalled(fd);
}

static void vectors(void)
{
	int other = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	const int fd = a.q[0].call_fd;
	const uint8_t bools[] = { 0, 1 };
	struct {
		struct vfu_irq_set s;
		uint8_t data[2];
	} m;

	ok(interrupts(fd), "rx interrupts by vector 1");
	ok(vf_irqs(a.sock, EVENTFDS, VFIO_PCI_MSIX_IRQ_INDEX, 1, 1, &other, 1) == 0 &&
		   interrupts(other) && !signalled(fd),
	   "another eventfd while it runs");
	ok(vf_irqs(a.sock, EVENTFDS, VFIO_PCI_MSIX_IRQ_INDEX, 1, 1, NULL, 0) == 0 &&
		   !interrupts(other),
	   "none any more");
	ok(vf_irqs(a.sock, EVENTFDS, VFIO_PCI_MSIX_IRQ_INDEX, 1, 1, &fd, 1) == 0 &&
		   interrupts(fd),
	   "the first again");
	common_write(&a, queue_select, 2, 0);
	common_write(&a, queue_msix_vector, 2, 0xffff);
	ok(!interrupts(fd), "the driver takes the vector away");
	common_write(&a, queue_msix_vector, 2, 0);
	ok(interrupts(config_fd) && !signalled(fd), "and gives the queue another");
	common_write(&a, queue_msix_vector, 2, 1);
	ok(vf_irqs(a.sock, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK,
		   VFIO_PCI_MSIX_IRQ_INDEX, 1, 1, NULL, 0) == 0 && !interrupts(fd),
	   "a masked vector is silent");
	ok(vf_irqs(a.sock, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK,
		   VFIO_PCI_MSIX_IRQ_INDEX, 1, 1, NULL, 0) == 0 && signalled(fd) &&
		   interrupts(fd),
	   "and tells when it is unmasked");
	m.s = (struct vfu_irq_set){ sizeof(m), VFIO_IRQ_SET_DATA_BOOL |
				    VFIO_IRQ_SET_ACTION_TRIGGER,
				    VFIO_PCI_MSIX_IRQ_INDEX, 0, 2 };
	memcpy(m.data, bools, 2);
	ok(vf_call(a.sock, VFU_DEVICE_SET_IRQS, &m, sizeof(m.s) + 2, NULL, 0) == 0 &&
		   signalled(fd) && !signalled(config_fd),
	   "the client triggers those that it says");
	is_int(vf_irqs(a.sock, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
		       VFIO_PCI_INTX_IRQ_INDEX, 0, 0, NULL, 0), 0,
	       "switching off what there is none of");
	ok(vf_irqs(a.sock, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
		   VFIO_PCI_MSIX_IRQ_INDEX, 0, 0, NULL, 0) == 0 && !interrupts(fd),
	   "MSI-X switched off as a whole");
	ok(vf_vectors(&a, 3) && interrupts(fd), "and on again");
	close(other);
}

/* Doorbells that need no message. */
static void ioeventfds(void)
{
	struct vfu_region_io_fds q = { 16, 0, BAR0, 0 };
	struct vfu_ioeventfd e[3];
	unsigned int i, nfds;
	int fds[16], n;

	ok(vf_call(a.sock, VFU_DEVICE_GET_REGION_IO_FDS, &q, 16, NULL, 0) == 16 &&
		   memcpy(&q, vf_reply, 16) && q.count == 3 &&
		   q.argsz == 16 + 3 * sizeof(e[0]),
	   "how much room the ioeventfds need");
	q.count = 0;
	vf_send(a.sock, VFU_DEVICE_GET_REGION_IO_FDS, 0, &q, 16, NULL, 0);
	n = vf_recv(a.sock, VFU_DEVICE_GET_REGION_IO_FDS, vf_reply,
		    sizeof(vf_reply), fds, &nfds);
	ok(n == (int)q.argsz && nfds == 3, "all three come with a descriptor");
	memcpy(e, vf_reply + 16, sizeof(e));
	ok(e[2].offset == at.notify + 8 && e[2].fd_index == 2 && e[2].size == 2 &&
		   e[2].type == VFU_IO_FD_TYPE_IOEVENTFD && !e[2].flags,
	   "at the doorbells' addresses");
	/* from here on the driver's kicks go there */
	for (i = 0; i < nfds; i++) {
		dup2(fds[i], a.q[i].kick_fd);
		close(fds[i]);
	}
	ok(one(false, 1000, 9) && one(true, 1000, 8), "frames with them");
	q = (struct vfu_region_io_fds){ 16, 0, BAR1, 0 };
	ok(vf_call(a.sock, VFU_DEVICE_GET_REGION_IO_FDS, &q, 16, NULL, 0) == 16 &&
		   memcpy(&q, vf_reply, 16) && q.count == 0,
	   "other regions have none");
}

/* Several posted writes in one message. */
static void write_multi(void)
{
	struct {
		struct vfu_write_multi m;
		struct vfu_write_one w[2];
	} m = { { 2 },
		{ { at.common + COMMON(queue_select), BAR0, 2, { 1, 0 } },
		  { at.notify + 4, BAR0, 2, { 1, 0 } } } };
	uint64_t n;

	ok(vf_call(a.sock, VFU_REGION_WRITE_MULTI, &m, sizeof(m), NULL, 0) == 8 &&
		   (memcpy(&n, vf_reply, 8), n == 2) &&
		   common_read(&a, queue_select, 2) == 1,
	   "two writes in one message");
	vf_send(a.sock, VFU_REGION_WRITE_MULTI, VFU_NO_REPLY, &m, sizeof(m), NULL, 0);
	is_int(common_read(&a, queue_select, 2), 1, "posted: the next reply is the next's");
}

static void config_change(void)
{
	struct vnet_pci_vendor_cap cap;
	struct vnet_vendor_block before, after;
	const uint8_t generation = common_read(&a, config_generation, 1);
	char text[512];

	vf_block(&a, &before);
	ok(!signalled(config_fd) && vf_read(a.sock, BAR0, at.isr, 1) == 0,
	   "no change yet");
	body(text, "vnet-udp", 0);
	rig_door = "vfio-user";
	vm_config(&a, text);
	kill(a.pid, SIGHUP);
	ok(wait_until(signalled(config_fd)), "a change raises the config vector");
	ok(vf_read(a.sock, BAR0, at.isr, 1) == 2 &&
		   vf_read(a.sock, BAR0, at.isr, 1) == 0,
	   "the ISR says so, once");
	vf_block(&a, &after);
	ok(after.encap_len == 0 && after.generation != before.generation &&
		   common_read(&a, config_generation, 1) != generation,
	   "new block, new generation");
	vf_read_bytes(a.sock, CONFIG, at.vendor, &cap, sizeof(cap));
	ok(!memcmp(&cap.block, &after, sizeof(after)), "in PCI config space, too");
	body(text, "vxlan", 0);
	vm_config(&a, text);
	kill(a.pid, SIGHUP);
	ok(wait_until(signalled(config_fd)), "and back");
	vf_read(a.sock, BAR0, at.isr, 1);
}

/* ---- resets ---- */

static void resets(void)
{
	struct ring_driver *q = &a.q[1];

	q->avail_idx += 1000;
	ring_driver_publish(q);
	vf_ring(&a, 1);
	ok(wait_until(signalled(config_fd)) &&
		   (common_read(&a, device_status, 1) & VIRTIO_CONFIG_S_NEEDS_RESET),
	   "a broken ring: the device needs a reset, and says so");
	vm_free_bufs(&a);
	ok(vf_driver(&a, STOCK_FEATURES, 3), "which its driver does");
	vm_post_rx(&a, 128, 2048);
	ok(one(false, 500, 1) && one(true, 500, 2), "frames");
	vm_free_bufs(&a);
	ok(vf_call(a.sock, VFU_DEVICE_RESET, NULL, 0, NULL, 0) == 0 &&
		   common_read(&a, device_status, 1) == 0 &&
		   common_read(&a, msix_config, 2) == 0xffff,
	   "a reset by the client, as at a reboot");
	ok(vf_driver(&a, STOCK_FEATURES, 3), "and the next driver");
	vm_post_rx(&a, 128, 2048);
	ok(one(false, 500, 1) && one(true, 500, 2), "frames");
}

/* ---- memory ---- */

static void memory(void)
{
	int small = memfd_create("small", MFD_CLOEXEC);
	unsigned int i, n;

	if (ftruncate(small, 4096) < 0)
		bail_out("memfd");
	is_int(vf_map(a.sock, RIG_GPA + 4096, 4096, 0, small), -EEXIST,
	       "memory over memory");
	is_int(vf_map(a.sock, 0xc0000, 0x20000, 0, -1), 0, "a ROM has no descriptor");
	is_int(vf_map(a.sock, 0xd0000, 0x20000, 0, small), -EEXIST, "nor room for more");
	is_int(vf_map(a.sock, 0, 8192, 0, small), -EINVAL, "a file that is too short");
	is_int(vf_unmap(a.sock, 0xc0000, 0x10000, 0), -ENOENT, "half a window goes not");
	is_int(vf_unmap(a.sock, 0xc0000, 0x20000, 0), 0, "a whole one does");
	is_int(vf_unmap(a.sock, 0xc0000, 0x20000, 0), -ENOENT, "once");
	is_int(vf_unmap(a.sock, RIG_GPA, RIG_MEM, 1), -ENOTSUP, "no dirty pages");
	for (n = 0; vf_map(a.sock, n * 8192, 4096, 0, small) == 0; n++)
		;
	is_int(n, GUEST_MEM_REGIONS_MAX - 1, "as many regions as there is room for");
	ok(log_has(&a, "the most is 8 regions"), "and a line in the log");
	is_int(vm_stat(&a, "front_memory_refused"), 1, "and a count");
	for (i = 0; i < n; i++)
		if (vf_unmap(a.sock, i * 8192, 4096, 0) != 0)
			break;
	is_int(i, n, "they go again");
	ok(one(false, 700, 1) && one(true, 700, 2), "rings go on over all that");
	is_int(vf_unmap(a.sock, RIG_GPA, RIG_MEM, 0), 0, "memory in use is given back");
	ok(!(common_read(&a, device_status, 1) & VIRTIO_CONFIG_S_NEEDS_RESET),
	   "the driver need not know");
	is_int(vf_map(a.sock, RIG_GPA, RIG_MEM, 0, a.mem.fd), 0, "it comes back");
	ok(one(false, 800, 3) && one(true, 800, 4), "and the rings go on");
	is_int(vf_unmap(a.sock, 0, 0, VFIO_DMA_UNMAP_FLAG_ALL), 0, "all at once");
	is_int(vf_map(a.sock, RIG_GPA, RIG_MEM, 0, a.mem.fd), 0, "once more");
	ok(one(false, 900, 5) && one(true, 900, 6), "and the rings go on");
	close(small);
}

static void reconnect(void)
{
	vm_free_bufs(&a);
	vf_disconnect(&a);
	ok(wait_until(log_has(&a, "front end has gone")), "the client goes");
	ok(vf_connect(&a, STOCK_FEATURES, 3), "and comes again");
	vm_post_rx(&a, 128, 2048);
	ok(one(false, 600, 1) && one(true, 600, 2), "frames");
	vm_free_bufs(&a);
	vm_free_bufs(&b);
	vf_disconnect(&a);
	vm_disconnect(&b);
	ok(vm_stop(&a) == 0 && vm_stop(&b) == 0, "both shims end well");
}

/* More queues than a message takes descriptors. */
static void many_queues(void)
{
	struct vfu_region_io_fds q = { 2000, 0, BAR0, 0 };
	unsigned int nfds = 0, i;
	int fds[18], got[16];
	char text[512];
	bool good = true;

	rig_door = "vfio-user";
	body(text, "vxlan", 0);
	strcat(text, "queues 8\n");
	vm_start(&a, "d", 4, text);
	a.sock = vf_hello(&a);
	ok(vf_enumerate(&a) && at.vectors == 18 && common_read(&a, num_queues, 2) == 17,
	   "17 queues, 18 vectors");
	for (i = 0; i < 18; i++)
		fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ok(vf_irqs(a.sock, EVENTFDS, VFIO_PCI_MSIX_IRQ_INDEX, 0, 16, fds, 16) == 0 &&
		   vf_irqs(a.sock, EVENTFDS, VFIO_PCI_MSIX_IRQ_INDEX, 16, 2, fds + 16,
			   2) == 0 &&
		   vf_irqs(a.sock, VFIO_IRQ_SET_DATA_NONE |
				   VFIO_IRQ_SET_ACTION_TRIGGER,
			   VFIO_PCI_MSIX_IRQ_INDEX, 0, 18, NULL, 0) == 0,
	   "their eventfds in two messages");
	for (i = 0; i < 18; i++) {
		good &= signalled(fds[i]);
		close(fds[i]);
	}
	ok(good, "each is the one it was said to be");
	vf_send(a.sock, VFU_DEVICE_GET_REGION_IO_FDS, 0, &q, 16, NULL, 0);
	ok(vf_recv(a.sock, VFU_DEVICE_GET_REGION_IO_FDS, vf_reply, sizeof(vf_reply),
		   got, &nfds) == 16 + 16 * 40 && nfds == 16,
	   "ioeventfds for as many as fit");
	close_fds(got, nfds);
	close(a.sock);
	a.sock = front_connect(&a);
	vf_version(a.sock, NULL);
	vf_send(a.sock, VFU_DEVICE_GET_REGION_IO_FDS, 0, &q, 16, NULL, 0);
	ok(vf_recv(a.sock, VFU_DEVICE_GET_REGION_IO_FDS, vf_reply, sizeof(vf_reply),
		   got, &nfds) == 16 + 40 && nfds == 1,
	   "for one, if the client does not say how many it takes");
	close_fds(got, nfds);
	close(a.sock);
	ok(vm_stop(&a) == 0, "this shim ends well");
}

/* ---- the agent ---- */

static int listener, agent;

static bool expect(struct attach_msg *msg, unsigned int type)
{
	int ret = -1;

	if (!wait_until((ret = attach_recv(agent, msg)) != -EAGAIN) || ret != 1 ||
	    le16toh(msg->hdr.type) != type) {
		note("expected message %u, got %d, %u", type, ret,
		     ret == 1 ? le16toh(msg->hdr.type) : 0);
		return false;
	}
	close_fds(msg->fds, msg->nfds);
	return true;
}

static bool done(const struct attach_msg *msg)
{
	struct vnet_attach_done d = { .status = htole32(VTOE_REASON_NONE) };

	return attach_send(agent, VNET_ATTACH_DONE, le32toh(msg->hdr.seq), &d,
			   NULL, 0) == 0;
}

static bool attach(void)
{
	struct vnet_attach_hello_reply r = { .version = htole16(1), .host = "h1" };
	struct attach_msg msg;
	unsigned int i;

	if (!wait_until((agent = accept4(listener, NULL, NULL,
					 SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) ||
	    !expect(&msg, VNET_ATTACH_HELLO) ||
	    attach_send(agent, VNET_ATTACH_HELLO_REPLY, le32toh(msg.hdr.seq), &r,
			NULL, 0) < 0 ||
	    !expect(&msg, VNET_ATTACH_MEM_TABLE) ||
	    le32toh(msg.u.mem_table.count) != 1 ||
	    le64toh(msg.u.mem_table.region[0].gpa) != RIG_GPA || !done(&msg))
		return false;
	for (i = 0; i < 5; i++)
		if (!expect(&msg, VNET_ATTACH_QUEUE_START) ||
		    le16toh(msg.u.queue_start.queue) != 3 + i ||
		    le64toh(msg.u.queue_start.desc) != a.q[3 + i].desc_gpa ||
		    !done(&msg))
			return false;
	return true;
}

static bool silent(int fd)
{
	return poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 0) == 0;
}

/* The region is the client's again only when the agent has let go of it. */
static void with_agent(void)
{
	const struct vfu_dma_unmap u = { sizeof(u), 0, RIG_GPA, RIG_MEM };
	char path[96], text[512];
	struct vnet_vendor_block block;
	struct attach_msg msg;
	bool good = true;
	unsigned int i;

	snprintf(path, sizeof(path), "%s/agent.sock", rig_dir);
	listener = unix_listen(path, SOCK_SEQPACKET);
	rig_door = "vfio-user";
	body(text, "vxlan", 0);
	sprintf(text + strlen(text), "agent %s\n", path);
	vm_start(&a, "c", 3, text);
	ok(vf_connect(&a, PV_FEATURES, 8), "a driver with offload queues");
	is_int(at.vectors, 9, "which have vectors, too");
	ok(attach(), "the agent is given queues and memory");
	ok(wait_until(vf_block(&a, &block) && block.vtoe_state == VNET_VTOE_UP),
	   "the guest is told");
	ok(vf_irqs(a.sock, EVENTFDS, VFIO_PCI_MSIX_IRQ_INDEX, 4, 1, &a.q[3].call_fd,
		   1) == 0 && silent(agent),
	   "the same interrupt again is nothing new to it");
	vf_send(a.sock, VFU_DMA_UNMAP, 0, &u, sizeof(u), NULL, 0);
	for (i = 0; i < 5 && good; i++)
		good = expect(&msg, VNET_ATTACH_QUEUE_STOP) && silent(a.sock) &&
		       done(&msg);
	ok(good && expect(&msg, VNET_ATTACH_MEM_TABLE) &&
		   le32toh(msg.u.mem_table.count) == 0 && silent(a.sock),
	   "the agent is asked to let go before the client is answered");
	ok(done(&msg) && vf_recv(a.sock, VFU_DMA_UNMAP, vf_reply, sizeof(vf_reply),
				 NULL, NULL) == sizeof(u),
	   "and the client is when it has");
	close(agent);
	close(listener);
	vf_disconnect(&a);
	ok(vm_stop(&a) == 0, "this shim ends well");
}

int main(void)
{
	char text[512];

	rig_init();
	rig_door = "vfio-user";
	body(text, "vxlan", 0);
	vm_start(&a, "a", 1, text);
	rig_door = "vhost-user";
	body(text, "vxlan", 1);
	vm_start(&b, "b", 2, text);
	session();
	config_space();
	pci_window();
	features();
	frames();
	vectors();
	ioeventfds();
	write_multi();
	config_change();
	resets();
	memory();
	reconnect();
	many_queues();
	with_agent();
	rig_done();
	return tap_done();
}
