// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Credit and acknowledgement: two connections send into the receive buffers of one guest. The policy is not modelled:
 * the run calls guest/vtoe_sock.ko/credit.c itself, for both ends, with the structs of the connections in the state.
 * What is modelled is who calls it when (send.c, recv.c, cmd.c of the guest) and where buffers and grants are meanwhile:
 *
 *	ring	posted by the guest, not seen by the agent	srq	with the agent, for what comes
 *	swq	grants on their way to the agent		told	forwarded to the sender, newest only
 *	wire	messages from sender to agent			rwq	from agent to guest
 *	held	in the socket's queue
 *
 * A small buffer takes a byte, a large one two. Each program writes WRITES bytes. The program of connection 1 reads; that
 * of connection 0 reads or not, closes with unread data or not, as it likes, and nothing waits for it.
 *
 * BREAK_*: a rule of the ABI left out, which the run has to notice.
 */
#ifndef SMALL
#define SMALL 4
#endif
#ifndef LARGE
#define LARGE 2
#endif
#ifndef WRITES
#define WRITES 4
#endif
#ifndef WINDOW
#define WINDOW 3
#endif
#define WANT 2 /* stands in the place of a class: a CREDIT with VTOE_MSG_F_WANT_CREDIT */

c_decl {
\#define usage credit_usage /* pan has one, too */
\#include "guest/vtoe_sock.ko/credit.c"
\#undef usage
\#include <stdlib.h>
}
c_state "struct vtoe_pool pool" "Global"
c_state "struct vtoe_rx_credit rx[2]" "Global"
c_state "struct vtoe_tx_credit tx[2]" "Global"

/* a struct vtoe_credit */
typedef credit_t { byte ack, bytes, small, large }

byte nxt[2], rcv_nxt[2];
bool want_told[2], closing[2], closed[2], open[2];
byte ring[2], srq[2], late[2];
byte granted[4], used[4]; /* as the agent knows: connection * 2 + class */
credit_t told[2];
bool fresh[2];
bool may[2], owes[2]; /* vtoe_tx_may_send(), and an acknowledgement to tell: as things stand */
bool hangs; /* the program of connection 0 does nothing any more */

chan swq = [4] of { byte, byte, byte, byte, byte };
chan wire[2] = [3] of { byte, byte, bool };
chan rwq[2] = [3] of { byte, byte, bool };
chan held[2] = [7] of { byte, byte };

/* What every step may use; zero between steps. */
byte n, class, size, ack, bytes, small, large, who;
bool want, ok;

inline step_done() {
	c_code {
		__u32 class;
		int i;

		for (i = 0; i < 2; i++) {
			now.may[i] = vtoe_tx_may_send(&now.tx[i], now.nxt[i], WRITES - now.nxt[i], &class) > 0;
			now.owes[i] = now.rx[i].acked != now.rx[i].consumed;
		}
	};
	n = 0; class = 0; size = 0; ack = 0; bytes = 0; small = 0; large = 0; who = 0; want = false; ok = false
}

/* ---- the receiving guest ---- */

/* vtoe_send_credit() */
inline send_credit() {
	c_code {
		struct vtoe_credit credit;

		vtoe_rx_grant(&now.pool, &now.rx[Pconnection->me], &credit);
		now.ack = le64toh(credit.ack);
		now.bytes = le64toh(credit.byte_limit);
		now.small = le32toh(credit.msg_limit[VNET_RWQ_SMALL]);
		now.large = le32toh(credit.msg_limit[VNET_RWQ_LARGE]);
	};
	assert(nfull(swq));
	swq!me, ack, bytes, small, large
}

inline send_credit_if_due() {
	c_code {
		struct vtoe_rx_credit *rx = &now.rx[Pconnection->me];

		now.ok = vtoe_rx_due(&now.pool, rx, rx->consumed == now.rcv_nxt[Pconnection->me]);
	};
	if
	:: ok -> send_credit()
	:: else
	fi
}

/* vtoe_rx_repost() */
inline repost() {
	c_code { vtoe_rx_reposted(&now.pool, &now.rx[Pconnection->me], now.class); };
#ifdef BREAK_GRANT_FIRST
	late[class]++
#else
	ring[class]++
#endif
}

/* close_done(): vtoe_pool_close() */
inline grant_ends() {
	c_code { vtoe_rx_close(&now.pool, &now.rx[Pconnection->me]); }
}

/* ---- the agent ---- */

/* What is granted can be received: no sender ever finds the queue empty. */
inline check_promises() {
	assert((open[0] -> granted[0] - used[0] : 0) + (open[1] -> granted[2] - used[2] : 0) <= srq[0]);
	assert((open[0] -> granted[1] - used[1] : 0) + (open[1] -> granted[3] - used[3] : 0) <= srq[1])
}

inline look_at_rings() { srq[0] = srq[0] + ring[0]; ring[0] = 0; srq[1] = srq[1] + ring[1]; ring[1] = 0 }

inline forward_grant() {
	swq?who, ack, bytes, small, large;
#ifndef BREAK_FORWARD_FIRST
	look_at_rings();
#endif
	if
	:: open[who] ->
		told[who].ack = ack;
		told[who].bytes = bytes;
		told[who].small = small;
		told[who].large = large;
		fresh[who] = true;
		granted[who * 2] = small;
		granted[who * 2 + 1] = large;
		check_promises()
	:: else
	fi
}

/* ---- what happens on a connection ---- */

proctype connection(byte me) {
end:
	do
	/* the sending guest: vtoe_xmit() */
	:: d_step { nfull(wire[me]) && nxt[me] < WRITES && (!want_told[me] || may[me]) ->
		c_code {
			struct vtoe_tx_credit *tx = &now.tx[Pconnection->me];
			__u32 class = 0, left = WRITES - now.nxt[Pconnection->me];

			now.n = vtoe_tx_may_send(tx, now.nxt[Pconnection->me], left, &class);
			if (now.n) {
				tx->sent[class]++;
				now.class = class;
				now.want = now.n < left &&
					   !vtoe_tx_may_send(tx, now.nxt[Pconnection->me] + now.n, left - now.n,
							     &class);
			}
		};
		if
		:: n -> wire[me]!class, n, want; nxt[me] = nxt[me] + n; want_told[me] = want
		:: else -> wire[me]!WANT, 0, true; want_told[me] = true
		fi;
		step_done()
	}
	:: d_step { fresh[me] -> /* vtoe_tx_credit() */
		fresh[me] = false;
		c_code {
			struct vtoe_credit credit = {
				.ack = htole64(now.told[Pconnection->me].ack),
				.byte_limit = htole64(now.told[Pconnection->me].bytes),
				.msg_limit = { htole32(now.told[Pconnection->me].small),
					       htole32(now.told[Pconnection->me].large) },
			};

			now.ok = vtoe_tx_update(&now.tx[Pconnection->me], &credit, now.nxt[Pconnection->me]);
		};
		assert(ok);
		step_done()
	}

	/* the agent: iba_deliver_begin(), iba_recv_credit() */
	:: d_step { nempty(wire[me]) && nfull(rwq[me]) ->
		wire[me]?class, size, want;
		if
		:: !open[me] /* unknown CID */
		:: open[me] && class == WANT -> rwq[me]!class, size, want
		:: else ->
			assert(used[me * 2 + class] < granted[me * 2 + class]);
			assert(srq[class] > 0); /* else RNR */
			srq[class]--;
			used[me * 2 + class]++;
			rwq[me]!class, size, want
		fi;
		step_done()
	}
	:: d_step { me == 0 && nempty(swq) -> forward_grant(); step_done() }
	:: d_step { me == 0 && (ring[0] || ring[1]) -> look_at_rings() }

	/* the receiving guest: vtoe_rx_message(), vtoe_credit_event() */
	:: d_step { nempty(rwq[me]) && len(swq) < 3 ->
		rwq[me]?class, size, want;
		if
		:: class == WANT && !closing[me] ->
#ifndef BREAK_NO_WANT
			c_code { now.rx[Pconnection->me].want = true; };
			send_credit_if_due()
#endif
		:: class == WANT && closing[me]
		:: else ->
			c_code {
				now.ok = vtoe_rx_got(&now.pool, &now.rx[Pconnection->me], now.class,
						     now.rcv_nxt[Pconnection->me] + now.size);
				now.rx[Pconnection->me].want = now.want;
			};
			assert(ok);
			rcv_nxt[me] = rcv_nxt[me] + size;
			if
			:: closing[me] -> repost()
			:: else -> held[me]!class, size
			fi
		fi;
		step_done()
	}
	/* its program: vtoe_recvmsg(), settle() */
	:: d_step { nempty(held[me]) && !(me == 0 && hangs) && len(swq) < 3 ->
		held[me]?class, size;
		c_code { now.rx[Pconnection->me].consumed += now.size; };
		repost();
		send_credit_if_due();
		step_done()
	}
	/* VTOE_ACK_DELAY */
	:: d_step { !closing[me] && len(swq) < 3 &&
		    owes[me] ->
		send_credit();
		step_done()
	}
#ifdef BREAK_GRANT_FIRST
	:: d_step { late[0] || late[1] ->
		ring[0] = ring[0] + late[0]; ring[1] = ring[1] + late[1]; late[0] = 0; late[1] = 0
	}
#endif
	:: d_step { me == 0 && !hangs -> hangs = true }
	/* close() with unread data: the agent forgets it when it executes CLOSE, the grant ends with the answer */
	:: d_step { me == 0 && !hangs && !closing[me] ->
		closing[me] = true;
		do
		:: len(held[me]) -> held[me]?class, size; repost()
		:: else -> break
		od;
#ifdef BREAK_GRANT_ENDS_EARLY
		grant_ends();
#endif
		step_done()
	}
	:: d_step { closing[me] && open[me] && empty(swq) -> open[me] = false }
	:: d_step { closing[me] && !open[me] && !closed[me] && empty(rwq[me]) -> closed[me] = true; grant_ends() }
	od
}

/* Nothing goes on: the connection that is read has moved everything, whatever the other does. */
proctype monitor() {
	atomic { timeout ->
		assert(nxt[1] == WRITES && empty(held[1]));
		assert(c_expr { now.tx[1].una >= WRITES });
		assert(srq[0] + ring[0] + late[0] + len(held[0]) == SMALL + LARGE - srq[1] - ring[1] - late[1])
	};
end:
	false
}

init {
	d_step {
		open[0] = true;
		open[1] = true;
		ring[0] = SMALL;
		ring[1] = LARGE;
		c_code {
			const __le32 sizes[VNET_RWQ_CLASSES] = { htole32(1), htole32(2) };
			int i;

			vtoe_pool_add(&now.pool, VNET_RWQ_SMALL, SMALL);
			vtoe_pool_add(&now.pool, VNET_RWQ_LARGE, LARGE);
			for (i = 0; i < 2; i++)
				if (!vtoe_rx_open(&now.pool, &now.rx[i], WINDOW) || !vtoe_tx_open(&now.tx[i], sizes))
					abort();
		};
		step_done()
	};
	atomic { run connection(0); run connection(1); run monitor() }
}
