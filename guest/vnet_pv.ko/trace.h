/* SPDX-License-Identifier: GPL-2.0-only */
/* Tracepoints vnet_pv:* (tracefs events/vnet_pv/). */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM vnet_pv

#if !defined(VNPV_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define VNPV_TRACE_H

#include <linux/netdevice.h>
#include <linux/tracepoint.h>

#include "encap.h"

#define VNPV_TRACE_DROP(name, str) { VNPV_RX_DROP_##name, str },
#define VNPV_TRACE_DROPS \
	VNPV_RX_DROPS(VNPV_TRACE_DROP) { VNPV_RX_OK, "ok" }

TRACE_EVENT(vnpv_vendor_change,
	TP_PROTO(const struct net_device *netdev, u32 old_generation,
		 const struct vnpv_block *block),
	TP_ARGS(netdev, old_generation, block),
	TP_STRUCT__entry(
		__field(int, ifindex)
		__field(u32, old_generation)
		__field(u32, generation)
		__field(u16, encap_len)
		__field(u8, encap_type)
		__field(u8, train_form)
		__field(u8, vtoe_state)
	),
	TP_fast_assign(
		__entry->ifindex = netdev->ifindex;
		__entry->old_generation = old_generation;
		__entry->generation = block->generation;
		__entry->encap_len = block->encap_len;
		__entry->encap_type = block->encap_type;
		__entry->train_form = block->train_form;
		__entry->vtoe_state = block->vtoe_state;
	),
	TP_printk("ifindex %d generation %u -> %u encap_type %u encap_len %u form %u vtoe_state %u",
		  __entry->ifindex, __entry->old_generation,
		  __entry->generation, __entry->encap_type,
		  __entry->encap_len, __entry->train_form,
		  __entry->vtoe_state)
);

TRACE_EVENT(vnpv_rx_drop,
	TP_PROTO(const struct net_device *netdev, u8 reason, u32 train_len),
	TP_ARGS(netdev, reason, train_len),
	TP_STRUCT__entry(
		__field(int, ifindex)
		__field(u8, reason)
		__field(u32, train_len)
	),
	TP_fast_assign(
		__entry->ifindex = netdev->ifindex;
		__entry->reason = reason;
		__entry->train_len = train_len;
	),
	TP_printk("ifindex %d %s train_len %u", __entry->ifindex,
		  __print_symbolic(__entry->reason, VNPV_TRACE_DROPS),
		  __entry->train_len)
);

#endif /* VNPV_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
