// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One offloaded connection from connect() to its end: two guests (vtoe_sock: connect.c, listen.c, send.c, recv.c,
 * close.c), two agents (open.c, conn.c, cmd.c, send.c, deliver.c, event.c), and the queues between them. docs/model.md
 * has what is proved. tables.pml is made from proto/vtoe_states.h: each state changes by that table or the run fails.
 *
 * Side 0 connects, side 1 listens. A message is one byte of the stream. Credit is without limit here (credit.pml), but when
 * a byte is posted is left open, so that SHUTDOWN comes before data as it does when credit is short.
 *
 *	guest --- cr ---> agent	  commands, in order	       agent --- eq ---> guest	events: made of what is pending
 *	guest --- swq --> agent	  DATA and CREDIT	       agent --- rwq --> guest	DATA, in any order (two classes)
 *	agent --- lane -> agent	  in order		       agent --- ans --> guest	answers to commands
 *
 * Nothing is in order between two of these but what agent_command() does. Each option of a process is one critical
 * section of the code (lock_sock or vs->lock in the guest, one step of the agent's loop).
 *
 * Switches, by the test: FREE (programs may stop, abort, close with unread data, connects and closes may time out); else
 * both programs write, read to the end and close, and then nobody may see a reset. LANE_LOSS: the lane may break.
 * BREAK_*: a rule of the ABI left out, which the run has to notice.
 */
#include "tables.pml"

#ifndef BYTES0
#define BYTES0 1 /* the program of side 0 may write */
#endif
#ifndef BYTES1
#define BYTES1 1
#endif
#define NO_FIN 7

#define UNDECIDED 0
#define VTOE 1
#define TCP 2

mtype = { CONNECT, ACCEPT, REJECT, SHUTDOWN, CLOSE, UNLISTEN };
mtype = { REQ, REP, REJ, DATA, CREDIT, FIN, RST };
mtype = { REQUEST, ESTABLISHED, CONNECT_FAILED, DISCONNECTED };

typedef guest_t {
	byte st = SOCK_CLOSE;
	byte path;
	byte snd_end, snd_nxt, una;
	byte have;	    /* bytes that are here, a bit each */
	byte rcv_nxt, consumed, acked;
	byte rcv_final = NO_FIN;
	bool shut, eof, reset;
	bool owned;	    /* a program has it: not before accept() */
	bool keeps;	    /* that program closes nothing */
	bool dead;	    /* and has closed it */
	bool failed;	    /* the opening; the work is on its way */
	bool closing, gone; /* CLOSE is given; is answered */
};

typedef conn_t {
	byte st = CONN_IDLE;
	bool exists, sid, path, await_rep, orphan, fin_sent;
	byte tx_off, rx_off;
	byte tx_final = NO_FIN;
	byte rx_final;
	byte tx_ack, rx_ack; /* of the peer for our guest; of our guest */
	bool p_request, p_established, p_credit, p_fin;
	byte p_fail;
};

guest_t sock[2];
conn_t conn[2];
bool listening = true;	/* the program's listener */
bool announced = true;	/* the same at its agent */
bool lane_up = true;

chan cr[2] = [3] of { mtype, byte };
chan ans[2] = [2] of { mtype, bool };
chan swq[2] = [2 + BYTES0 + BYTES1] of { mtype, byte, byte };
chan rwq[2] = [2] of { byte, byte };
chan eq[2] = [1] of { mtype, byte, byte };
chan lane[2] = [4 + BYTES0 + BYTES1] of { mtype, byte, byte };

#define OTHER (1 - me)
#define G sock[me]
#define C conn[me]
#define IN3(x, p, q, r) (x == p || x == q || x == r)

inline put2(to, m1, m2) { assert(nfull(to)); to!m1, m2 }
inline put3(to, m1, m2, m3) { assert(nfull(to)); to!m1, m2, m3 }

/* ======== the guest ======== */

/* vtoe_cmd_close() */
inline cmd_close(abort) {
	if
	:: !G.closing -> G.closing = true; put2(cr[me], CLOSE, abort)
	:: else
	fi
}

/* vtoe_abort(); of it the program, if it still has the socket, learns */
inline abort_conn() {
	if
	:: G.st != SOCK_CLOSE ->
		G.reset = true;
		sock_RESET(G.st);
		G.snd_end = G.snd_nxt
	:: else
	fi;
	cmd_close(true)
}

inline connect_failed() {
	if
	:: G.st == SOCK_SYN_SENT -> G.failed = true
	:: else
	fi
}

/* vtoe_reset() */
inline reset_conn() {
	if
	:: G.st == SOCK_SYN_SENT && !G.dead -> G.failed = true
	:: else -> abort_conn()
	fi
}

inline close_check() {
	if
	:: !G.closing && G.path == VTOE && G.st == SOCK_CLOSE && G.consumed == G.rcv_final &&
	   G.acked == G.consumed && G.una == G.snd_end -> cmd_close(false)
	:: else
	fi
}

/* vtoe_rx_check_fin(): the end of the stream is where the peer's program put it */
inline check_fin() {
	if
	:: G.rcv_nxt == G.rcv_final && IN3(G.st, SOCK_ESTABLISHED, SOCK_FIN_WAIT1, SOCK_FIN_WAIT2) ->
		assert(sock[OTHER].shut && G.rcv_nxt == sock[OTHER].snd_end);
		G.eof = true;
		sock_FIN(G.st)
	:: else
	fi
}

/* vtoe_tx_credit(): consumed by the peer's program, no less */
inline tx_credit(ack) {
	assert(ack <= G.snd_nxt && ack <= sock[OTHER].consumed);
	if
	:: ack > G.una ->
		G.una = ack;
		if
		:: G.una == G.snd_end && G.shut && IN3(G.st, SOCK_FIN_WAIT1, SOCK_CLOSING, SOCK_LAST_ACK) ->
			sock_ACKED(G.st)
		:: else
		fi
	:: else
	fi
}

/* shut_send() */
inline shut_send() {
	if
	:: G.st == SOCK_ESTABLISHED || G.st == SOCK_CLOSE_WAIT ->
		put2(cr[me], SHUTDOWN, G.snd_end);
		G.shut = true;
		sock_SHUTDOWN(G.st);
		if
		:: G.una == G.snd_end -> sock_ACKED(G.st)
		:: else
		fi;
		close_check()
	:: else
	fi
}

inline send_credit() {
	put3(swq[me], CREDIT, 0, G.consumed);
	G.acked = G.consumed
}

#define CAN_SEND (!G.closing && !G.gone && G.st != SOCK_SYN_SENT && G.st != SOCK_SYN_RECV && G.path == VTOE)
#define UNREAD (G.have >> G.consumed)
#define OPEN (G.owned && !G.dead && G.path == VTOE && !G.reset)

/* close(), vtoe_release() */
inline close_socket(linger0) {
	if
	:: G.st == SOCK_SYN_SENT || UNREAD || linger0 ->
		abort_conn();
		G.have = 0;
		G.rcv_nxt = G.consumed
	:: else ->
		if
		:: G.acked != G.consumed && CAN_SEND -> send_credit()
		:: else
		fi;
		shut_send();
		close_check()
	fi;
	G.dead = true
}

/* vtoe_rx_message() */
inline rx_message(offset, ack) {
	if
	:: G.gone
	:: !G.gone && G.dead && G.st != SOCK_CLOSE -> reset_conn()
	:: !G.gone && (G.closing || (!G.dead && G.st == SOCK_CLOSE))
	:: else ->
		assert(offset >= G.rcv_nxt && offset < G.rcv_final && !(G.have & (1 << offset)));
		G.have = G.have | (1 << offset);
		do
		:: G.have & (1 << G.rcv_nxt) -> G.rcv_nxt++
		:: else -> break
		od;
		check_fin();
		tx_credit(ack);
		close_check()
	fi
}

/* vtoe_rx_fin() */
inline rx_fin(final, ack) {
	assert(G.rcv_final == NO_FIN && (final >= G.rcv_nxt || G.st == SOCK_CLOSE));
#ifdef BREAK_FIN_OFFSET
	G.rcv_final = G.rcv_nxt; /* the stream ends with what is here */
#else
	G.rcv_final = final;
#endif
	if
	:: G.st != SOCK_CLOSE -> tx_credit(ack)
	:: else
	fi;
	check_fin();
	close_check()
}

proctype guest(byte me) {
	mtype what;
	byte a, b;
	bool status;

end:
	do
	/* ---- the program ---- */
	:: d_step { me == 0 && !G.owned -> /* connect() */
		G.owned = true;
		sock_CONNECT(G.st);
		put2(cr[me], CONNECT, 0)
	}
	:: d_step { me == 1 && !G.owned && !G.dead && listening && G.path == VTOE && G.st != SOCK_SYN_RECV ->
		G.owned = true /* accept() */
	}
	:: d_step { OPEN && G.snd_end < (me == 0 -> BYTES0 : BYTES1) &&
		    (G.st == SOCK_ESTABLISHED || G.st == SOCK_CLOSE_WAIT) ->
		G.snd_end++
	}
	:: d_step { OPEN && G.rcv_nxt > G.consumed -> G.consumed++ }
	:: d_step { OPEN && !G.keeps && !G.shut && G.st != SOCK_CLOSE -> shut_send() } /* shutdown(SHUT_WR) */
	:: d_step { OPEN && !G.keeps && G.eof && G.consumed == G.rcv_nxt -> close_socket(false) }
#ifdef FREE
	:: d_step { G.owned && !G.keeps && !G.dead && G.path != TCP -> close_socket(false) }
	:: d_step { G.owned && !G.keeps && !G.dead && G.path != TCP -> close_socket(true) }
	:: d_step { me == 1 && !G.keeps && listening -> /* vtoe_unlisten() */
		listening = false;
		put2(cr[me], UNLISTEN, 0);
		if
		:: !G.owned && G.path == VTOE && G.st != SOCK_SYN_RECV -> reset_conn(); G.dead = true
		:: else
		fi
	}
#endif
	/* ---- what the kernel does by itself ---- */
	:: d_step { CAN_SEND && G.snd_nxt < G.snd_end -> /* vtoe_xmit() */
		put3(swq[me], DATA, G.snd_nxt, G.consumed);
		G.acked = G.consumed;
		G.snd_nxt++;
		close_check()
	}
	:: d_step { CAN_SEND && G.acked != G.consumed -> send_credit(); close_check() }
	:: d_step { G.st == SOCK_SYN_SENT && G.failed -> /* give_up() */
		sock_FAILED(G.st);
		cmd_close(true);
		G.have = 0;
		G.rcv_nxt = 0;
		assert(G.path == UNDECIDED && !G.snd_end && !G.consumed); /* before any byte */
		G.path = TCP
	}
#ifdef FREE
	:: d_step { G.st == SOCK_SYN_SENT && !G.failed -> G.failed = true } /* VTOE_CONNECT_TIMEOUT */
	:: d_step { G.dead && G.st != SOCK_CLOSE -> abort_conn() }	    /* VTOE_ORPHAN_TIMEOUT */
#endif
	/* ---- NAPI ---- */
	:: d_step { rwq[me]??[0, b] -> rwq[me]??0, b; rx_message(0, b); b = 0 }
	:: d_step { rwq[me]??[1, b] -> rwq[me]??1, b; rx_message(1, b); b = 0 }
	:: d_step { nempty(eq[me]) ->
		eq[me]?what, a, b;
		if
		:: what == REQUEST ->
			if
			:: listening -> /* make_child() */
				sock_REQUEST(G.st);
				G.path = VTOE;
				put2(cr[me], ACCEPT, 0)
			:: else -> put2(cr[me], REJECT, 0)
			fi
		:: G.gone || what == REJ
		:: else ->
			if
			:: what == ESTABLISHED && G.st == SOCK_SYN_SENT && !G.failed ->
				assert(G.path == UNDECIDED);
				G.path = VTOE;
				sock_ESTABLISHED(G.st);
				check_fin()
			:: what == CONNECT_FAILED -> connect_failed()
			:: what == DISCONNECTED -> reset_conn()
			:: what == CREDIT && G.st != SOCK_CLOSE -> tx_credit(b); close_check()
			:: what == FIN && G.path != TCP -> rx_fin(a, b)
			:: else
			fi
		fi;
		what = 0; a = 0; b = 0
	}
	:: d_step { nempty(ans[me]) ->
		ans[me]?what, status;
		if
		:: what == ACCEPT -> /* vtoe_child_answered() */
			if
			:: G.st == SOCK_SYN_RECV && !status -> sock_FAILED(G.st); cmd_close(true)
			:: G.st == SOCK_SYN_RECV && status -> sock_ESTABLISHED(G.st); check_fin()
			:: else
			fi;
			if
			:: !status || !listening -> reset_conn(); G.dead = true
			:: else
			fi
		:: what == SHUTDOWN && !status -> reset_conn()
		:: what == CLOSE -> G.gone = true
		:: else
		fi;
		what = 0; status = 0
	}
	od
}

/* ======== the agent ======== */

inline lane_send(type, offset) {
	if
	:: C.path && lane_up -> put3(lane[OTHER], type, offset, C.rx_ack)
	:: else
	fi
}

inline tell_peer_failed() {
	if
	:: C.st == CONN_REQ_RCVD -> lane_send(REJ, 0)
	:: C.st >= CONN_REP_RCVD && C.st != CONN_CLOSED -> lane_send(RST, 0)
	:: else
	fi
}

inline destroy() { C.exists = false; C.path = false; C.sid = false; C.orphan = false; C.await_rep = false }

inline forget_pending() {
	C.p_request = false; C.p_established = false; C.p_credit = false; C.p_fin = false; C.p_fail = 0
}

/* iba_conn_fail_event() */
inline conn_fail(tell) {
	if
	:: IN3(C.st, CONN_IDLE, CONN_ERROR, CONN_CLOSED)
	:: else ->
		if
		:: tell -> tell_peer_failed()
		:: else
		fi;
		if
		:: !C.await_rep -> C.path = false
		:: else
		fi;
		if
		:: C.st == CONN_REQ_RCVD -> conn_FAIL(C.st); forget_pending(); destroy()
		:: else ->
			C.p_fail = (C.st < CONN_ESTABLISHED -> CONNECT_FAILED : DISCONNECTED);
			C.p_credit = false;
			conn_FAIL(C.st)
		fi
	fi
}

/* iba_conn_close() */
inline conn_close(abort) {
	if
#ifndef BREAK_ABORT_SILENT
	:: (abort || !(C.st == CONN_BOTH_FIN && C.fin_sent)) && C.st != CONN_ERROR -> tell_peer_failed()
#endif
	:: else
	fi;
	forget_pending();
	C.sid = false;
	conn_CLOSE(C.st);
	if
#ifndef BREAK_NO_ORPHAN
	:: C.await_rep -> C.orphan = true
#endif
	:: else -> destroy()
	fi
}

inline send_fin() {
	if
	:: C.tx_off == C.tx_final && (C.st == CONN_LOCAL_FIN || C.st == CONN_BOTH_FIN) ->
		C.fin_sent = true;
		lane_send(FIN, C.tx_final)
	:: else
	fi
}

/* send_one(): a correct guest never breaks a rule */
inline take_message() {
	swq[me]?what, a, b;
	if
	:: !C.sid || C.st == CONN_ERROR
	:: else ->
		assert(C.st >= CONN_ESTABLISHED && C.st <= CONN_BOTH_FIN);
		assert(b <= C.rx_off);
		C.rx_ack = (b > C.rx_ack -> b : C.rx_ack);
		if
		:: what == CREDIT -> lane_send(CREDIT, 0)
		:: else ->
			assert(a == C.tx_off && a < C.tx_final);
			C.tx_off++;
			lane_send(DATA, a);
			send_fin()
		fi
	fi
}

/* What stands on the SWQ goes first. */
inline agent_command() {
#ifdef BREAK_CLOSE_OVERTAKES
	do
	:: len(swq[me]) && !cr[me]?[CLOSE, 0] -> take_message()
	:: else -> break
	od;
#else
	do
	:: len(swq[me]) -> take_message()
	:: else -> break
	od;
#endif
	cr[me]?what, a;
	if
	:: what == CONNECT -> C.exists = true; C.sid = true; conn_CONNECT(C.st)
	:: what == ACCEPT && C.exists && C.st == CONN_REQ_RCVD ->
		C.sid = true;
		C.p_request = false;
		conn_ACCEPT(C.st);
		lane_send(REP, 0);
		put2(ans[me], ACCEPT, true)
	:: what == ACCEPT && !(C.exists && C.st == CONN_REQ_RCVD) -> put2(ans[me], ACCEPT, false)
	:: what == REJECT ->
		if
		:: C.exists && C.st == CONN_REQ_RCVD -> conn_close(false)
		:: else
		fi
	:: what == UNLISTEN ->
		announced = false;
		if
		:: C.exists && C.st == CONN_REQ_RCVD -> conn_fail(true)
		:: else
		fi
	:: what == SHUTDOWN ->
		if
		:: C.st == CONN_ERROR -> put2(ans[me], SHUTDOWN, false)
		:: else ->
			assert(C.st == CONN_ESTABLISHED || C.st == CONN_REMOTE_FIN);
			assert(a >= C.tx_off);
#ifdef BREAK_FIN_EARLY
			C.tx_final = C.tx_off; /* FIN when the program says so, not behind its data */
#else
			C.tx_final = a;
#endif
			conn_LOCAL_FIN(C.st);
			send_fin()
		fi
	:: what == CLOSE ->
		if
		:: C.sid -> conn_close(a)
		:: else /* an ACCEPT that failed */
		fi;
		put2(ans[me], CLOSE, true)
	fi
}

inline merge_credit() {
	assert(b <= C.tx_off);
	C.tx_ack = (b > C.tx_ack -> b : C.tx_ack)
}

inline lane_message() {
	lane[me]?what, a, b;
	if
	:: what == REQ ->
		if
		:: announced ->
			C.exists = true;
			C.path = true;
			conn_REQ(C.st);
			C.p_request = true
		:: else -> put3(lane[OTHER], REJ, 0, 0)
		fi
	:: what != REQ && !(C.exists && C.path) /* unknown CID */
	:: what == REP && C.exists && C.path ->
		assert(C.await_rep);
		C.await_rep = false;
		if
		:: C.st == CONN_REQ_SENT -> conn_REP(C.st); C.p_established = true
		:: else -> /* too late */
#ifndef BREAK_LATE_REP
			lane_send(RST, 0);
#endif
			if
			:: C.orphan -> destroy()
			:: else -> C.path = false
			fi
		fi
	:: what == REJ && C.exists && C.path ->
		assert(C.await_rep);
		C.await_rep = false;
		if
		:: C.orphan -> destroy()
		:: C.st == CONN_REQ_SENT -> conn_fail(false)
		:: else -> C.path = false
		fi
	:: what == RST && C.exists && C.path ->
		C.await_rep = false;
		if
		:: C.orphan -> destroy()
		:: else -> conn_fail(false)
		fi
	:: IN3(what, DATA, CREDIT, FIN) && C.exists && C.path && (C.st < CONN_ESTABLISHED || C.st > CONN_BOTH_FIN) ->
		assert(what == CREDIT || C.orphan || C.st == CONN_ERROR)
	:: else ->
		merge_credit();
		if
		:: what == DATA ->
			assert(a == C.rx_off && (C.st == CONN_ESTABLISHED || C.st == CONN_LOCAL_FIN));
			C.rx_off++;
			C.p_credit = false;
			put2(rwq[me], a, C.tx_ack)
		:: what == CREDIT -> C.p_credit = true
		:: else ->
			assert(a == C.rx_off);
			C.rx_final = a;
			conn_REMOTE_FIN(C.st);
			C.p_fin = true
		fi
	fi
}

/* make_event() */
inline event() {
	if
	:: C.p_request -> C.p_request = false; eq[me]!REQUEST, 0, 0
	:: !C.p_request && C.p_established -> C.p_established = false; C.p_credit = false; eq[me]!ESTABLISHED, 0, 0
	:: !C.p_request && !C.p_established && C.p_credit -> C.p_credit = false; eq[me]!CREDIT, 0, C.tx_ack
	:: !C.p_request && !C.p_established && !C.p_credit && C.p_fin ->
		C.p_fin = false;
		eq[me]!FIN, C.rx_final, C.tx_ack
	:: else -> eq[me]!C.p_fail, 0, 0; C.p_fail = 0
	fi
}

#define PENDING (C.p_request || C.p_established || C.p_credit || C.p_fin || C.p_fail)

proctype agent(byte me) {
	mtype what;
	byte a, b;

end:
	do
	:: d_step { nempty(cr[me]) -> agent_command(); what = 0; a = 0; b = 0 }
	:: d_step { nempty(swq[me]) -> take_message(); what = 0; a = 0; b = 0 }
	:: d_step { nempty(lane[me]) -> lane_message(); what = 0; a = 0; b = 0 }
	:: d_step { PENDING && nfull(eq[me]) -> event() }
	/* the way to the peer: found, or not */
	:: d_step { C.exists && C.st == CONN_ADDR_WAIT -> conn_ADDR(C.st) }
	:: d_step { C.exists && C.st == CONN_ROUTE_WAIT && lane_up ->
		conn_LANE(C.st);
		C.path = true;
		C.await_rep = true;
		lane_send(REQ, 0)
	}
#ifdef FREE
	:: d_step { C.exists && (C.st == CONN_ADDR_WAIT || C.st == CONN_ROUTE_WAIT) -> conn_fail(false) }
	:: d_step { C.exists && (C.st == CONN_REQ_SENT || C.st == CONN_REQ_RCVD) -> conn_fail(true) } /* IBA_OPEN_TIMEOUT_US */
#endif
#ifdef LANE_LOSS
	:: d_step { !lane_up && C.exists && C.path ->
		C.await_rep = false;
		if
		:: C.orphan -> destroy()
		:: else -> conn_fail(false)
		fi
	}
	:: d_step { !lane_up && C.exists && C.st == CONN_ROUTE_WAIT -> conn_fail(false) }
#endif
	od
}

/* ======== what must hold ======== */

#define ENDED(s) (sock[s].dead && sock[s].gone && !conn[s].exists)
#define QUIET(s) (empty(cr[s]) && empty(swq[s]) && empty(rwq[s]) && empty(eq[s]) && empty(ans[s]) && empty(lane[s]))

proctype monitor() {
#ifdef LANE_LOSS
	d_step { lane_up -> lane_up = false;
		do
		:: len(lane[0]) -> lane[0]?_, _, _
		:: len(lane[1]) -> lane[1]?_, _, _
		:: else -> break
		od
	}
#endif
	/* Nobody has anything left to do. */
	atomic { timeout ->
		assert(QUIET(0) && QUIET(1));
#if defined(FREE) || defined(LANE_LOSS)
		/* What was closed has ended; the shadow connection of what fell back, too; nobody is left alone. */
		assert(!sock[0].dead || sock[0].path == TCP || (sock[0].gone && !conn[0].exists));
		assert(!sock[1].dead || sock[1].path == UNDECIDED || !conn[1].exists);
		assert(sock[0].path != TCP || (sock[0].gone && !conn[0].exists));
		assert(conn[0].exists || !conn[1].exists || sock[1].st == SOCK_CLOSE);
		assert(conn[1].exists || !conn[0].exists || sock[0].st == SOCK_CLOSE);
#else
		assert(ENDED(0) && ENDED(1));
		assert(!sock[0].reset && !sock[1].reset);
		assert(sock[0].path == VTOE && sock[1].path == VTOE);
#endif
	};
end:
	false
}

init {
	atomic {
#ifdef FREE
		if
		:: sock[0].keeps = true
		:: sock[1].keeps = true
		:: true
		fi;
#endif
		run guest(0);
		run guest(1);
		run agent(0);
		run agent(1);
		run monitor()
	}
}
