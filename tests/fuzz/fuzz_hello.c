// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Any bytes as messages of the in-band carrier, at both ends. The input is a list of
 *
 *	byte 0	what: 0 a chain of the guest's, on tx queue byte 1 % 8;
 *		1 the front end's position for queue byte 1 % 8, bytes 2 and 3
 *		2 a change of the vendor block
 *		3 bytes that the guest's driver finds in a buffer
 *	byte 1	see there
 *	byte 2	length of what follows, for 0 and 3
 */
#include <string.h>

#include "fuzz.h"
#include "log.h"
#include "shim.h"

#include "../../guest/vnet_pv.ko/encap.c"
#include "../../guest/vnet_pv.ko/message.c"

static const char config[] =
	"vm f\ntenant 1\nmac 52:54:00:00:00:01\nmtu 1450\nencap vxlan\n"
	"front vhost-user /nowhere in-band\nagent /nowhere\n";

static struct shim *shim;

static void set_up(void)
{
	if (shim)
		return;
	log_init("fuzz", LOG_ERR);
	shim = calloc(1, sizeof(*shim));
	must(shim);
	shim->conf = shim_config_parse("fuzz", config, sizeof(config) - 1);
	shim->loop = loop_create();
	must(shim->conf && shim->loop);
	shim_routes_set(&shim->routes, shim->conf);
	shim_queues_init(shim);
	must(shim_hello_init(shim) == 0);
	shim_device_init(shim);
	shim_tx_init(shim);
	must(shim_rx_init(shim) == 0 && shim_attach_init(shim) == 0 &&
	     shim_reasm_init(shim) == 0);
	shim->front.shim = shim;
	shim->front.fd = -1;
	shim->front.ops = &shim_vhost_user_ops;
}

static void check(void)
{
	unsigned int i, vtoe = 0, unused = 0;

	for (i = 0; i < shim->queue_count; i++) {
		vtoe += shim->queue[i].kind == SHIM_QUEUE_VTOE;
		unused += shim->queue[i].kind == SHIM_QUEUE_UNUSED;
		must(shim->queue[i].state == SHIM_QUEUE_IDLE);
	}
	must(vtoe == (shim->dev.in_band ? SHIM_VTOE_QUEUES : 0));
	must(unused == shim->dev.in_band);
	must(!shim->dev.in_band || !shim->hello.asking);
	must(shim_device_active_pairs(shim) >= 1);
}

static void from_guest(unsigned int pair, uint8_t *bytes, uint8_t len)
{
	struct virtq_chain chain = { .out_count = 1, .out_bytes = len };

	chain.iov[0] = (struct iovec){ bytes, len };
	shim_hello_received(shim, pair, &chain);
}

static void to_guest(const uint8_t *bytes, uint8_t len)
{
	struct vnpv_block block;
	struct vnpv_message m;
	const char *why = NULL;
	int ret;

	if (!vnpv_message_parse(bytes, len, &m))
		return;
	ret = vnpv_message_answer(&m, 1, m.cookie, &block, &why);
	must(ret == 0 || ret == -EAGAIN || (why && *why));
	must(ret || block.vtoe_state == VNET_VTOE_ABSENT ||
	     block.vtoe_first_queue == 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	set_up();
	while (size >= 4) {
		const uint8_t what = data[0] & 3, at = data[1] % 8;
		uint8_t len = 1;

		if (what == 0 || what == 3) {
			/* a piece of memory of its own: nothing may look behind it */
			len = data[2] < size - 3 ? data[2] : size - 3;
			uint8_t *copy = malloc(len);

			must(copy || !len);
			if (len)
				memcpy(copy, data + 3, len);
			if (what == 0)
				from_guest(at, copy, len);
			else
				to_guest(copy, len);
			free(copy);
		} else if (what == 1) {
			const uint16_t base = data[2] << 8 | data[3];

			shim_hello_base_set(&shim->queue[at], base);
			shim->queue[at].base = base;
		} else {
			shim_device_changed(shim);
		}
		check();
		data += 3 + len;
		size -= 3 + len;
	}
	shim_device_reset_all(shim);
	must(!shim->dev.in_band && !shim->hello.pending && !shim->hello.asking);
	return 0;
}
