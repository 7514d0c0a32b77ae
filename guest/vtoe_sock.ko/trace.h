/* SPDX-License-Identifier: GPL-2.0-only */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM vtoe

#if !defined(VTOE_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define VTOE_TRACE_H

#include <linux/tracepoint.h>
#include "vtoe.h"

/* Every change of a socket's state goes through vtoe_set_state(). */
TRACE_EVENT(vtoe_state,
	TP_PROTO(const struct sock *sk, u32 sid, int from, int trigger, int to),
	TP_ARGS(sk, sid, from, trigger, to),
	TP_STRUCT__entry(
		__field(const void *, sk)
		__field(u32, sid)
		__field(int, from)
		__field(int, trigger)
		__field(int, to)
	),
	TP_fast_assign(
		__entry->sk = sk;
		__entry->sid = sid;
		__entry->from = from;
		__entry->trigger = trigger;
		__entry->to = to;
	),
	TP_printk("sk=%p sid=%#x %d -> %d by trigger %d", __entry->sk, __entry->sid,
		  __entry->from, __entry->to, __entry->trigger)
);

#endif /* VTOE_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
