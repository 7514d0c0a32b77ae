// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * connect() that does not wait, and what the program sees of its end: by poll() and SO_ERROR, or by a second, blocking
 * connect(). The offload may establish, fail, or say nothing; after a failure the inner TCP socket connects, and may
 * establish, fail at once, or fail later (connect.c, fallback.c, poll.c). Not one critical section each, as in
 * connection.pml: what poll() reads without the lock is a step of its own, and so is what it races with.
 *
 * The program may not see an end before there is one, nor an end other than the right one, nor sleep through it.
 *
 * Switches: NO_FALLBACK (mode vnet: failure is the end). BREAK_*: the code another way round, which the run has to notice.
 */
#include "tables.pml"

#define UNDECIDED 0
#define VTOE 1
#define TCP 2

mtype = { CLOSED, CONNECTING, CONNECTED, REFUSED };

byte st = SOCK_CLOSE; /* sk_state */
byte path;
bool failed, work;    /* the opening; vtoe_connect_work() is to run */
bool locked;	      /* lock_sock */
bool err;	      /* sk_err */
bool inner_err;
mtype inner = CLOSED;
bool woken;	      /* the program's wait queue entry */
bool waits;
bool seen, seen_ok;   /* the end, as the program saw it */
bool decided;

#define MASK_OUT 1
#define MASK_HUP 2
#define MASK_ERR 4

inline lock() { atomic { !locked -> locked = true } }
inline unlock() { locked = false }
inline wake() { woken = woken | waits }

/* vtoe_poll(), with poll_inner(); without a lock */
inline poll(mask) {
	mask = 0;
#ifdef BREAK_PATH_READ_FIRST
	was_tcp = path == TCP;
	state = st;
#else
	state = st;
	was_tcp = path == TCP;
#endif
	if
	:: was_tcp -> d_step {
		if
		:: inner == CLOSED || inner == REFUSED -> mask = MASK_OUT | MASK_HUP
		:: inner == CONNECTED -> mask = MASK_OUT
		:: else
		fi;
		if
		:: inner_err ->
			mask = mask | MASK_ERR;
#ifndef BREAK_POLL_COPIES_NOT
			err = true /* its own callback may come later */
#endif
		:: else
		fi }
	:: else ->
		if
		:: state == SOCK_CLOSE -> mask = MASK_OUT | MASK_HUP
		:: state == SOCK_ESTABLISHED -> mask = MASK_OUT
		:: else
		fi
	fi;
	if
	:: err -> mask = mask | MASK_ERR
	:: else
	fi
}

active proctype program() {
	byte mask, state;
	bool was_tcp;

	/* connect(): EINPROGRESS */
	lock();
	d_step { sock_CONNECT(st); unlock() };
	if
	:: true -> /* poll(), SO_ERROR */
		waits = true;
		do
		:: poll(mask);
			if
			:: mask -> break
			:: else -> atomic { woken -> woken = false }
			fi
		od;
		waits = false;
		seen_ok = !err; /* SO_ERROR */
		seen = true;
		assert(!seen_ok || mask == MASK_OUT);
		assert(seen_ok || mask & MASK_ERR)
	:: true -> /* connect(), wait_connected(), inner_connect() */
		lock();
		waits = true;
		do
		:: st != SOCK_SYN_SENT -> break
		:: else -> unlock(); atomic { woken -> woken = false }; lock()
		od;
		waits = false;
		was_tcp = path == TCP;
		if
		:: !was_tcp -> seen_ok = st == SOCK_ESTABLISHED; unlock()
		:: else ->
			unlock();
			inner != CONNECTING; /* TCP's own waiting */
			seen_ok = inner == CONNECTED
		fi;
		seen = true
	fi;
end:
	false
}

/* What the agent says, if it says anything: vtoe_connect_established(), vtoe_connect_failed(). vs->lock */
active proctype softirq() {
end:
	if
	:: d_step { st == SOCK_SYN_SENT && !failed ->
		path = VTOE;
		sock_ESTABLISHED(st);
		wake()
	}
	:: d_step { st == SOCK_SYN_SENT && !failed -> failed = true; work = true }
	fi
}

/* By the event, or the time limit: give_up(). */
active proctype worker() {
end:
	if
	:: work
	:: st == SOCK_SYN_SENT
	fi;
	lock();
	if
	:: d_step { st != SOCK_SYN_SENT -> unlock() }
	:: d_step { st == SOCK_SYN_SENT -> failed = true };
#ifdef BREAK_STATE_FIRST
		d_step { sock_FAILED(st) };
#endif
#ifdef BREAK_PATH_FIRST
		path = TCP;
#endif
#ifdef NO_FALLBACK
		err = true;
#else
		if
		:: inner = CONNECTING
		:: err = true /* it fails at once */
		fi;
		d_step { assert(path != VTOE); path = TCP };
#endif
#ifndef BREAK_STATE_FIRST
		d_step { sock_FAILED(st) };
#endif
		decided = true;
		wake();
		unlock()
	fi
}

/* The inner socket's callbacks, inner_state_change() and inner_error_report(). */
active proctype tcp() {
end:
	inner == CONNECTING;
	if
	:: inner = CONNECTED
	:: d_step { inner_err = true; inner = REFUSED };
#ifdef BREAK_COPY_TCP_ONLY
		if
		:: path == TCP -> err = true
		:: else
		fi
#else
		err = true
#endif
	fi;
	wake()
}

/* Nothing goes on any more: the program saw the end, and the right one. */
active proctype monitor() {
	atomic { timeout ->
		if
		:: st == SOCK_SYN_SENT && !failed && !work /* nobody said anything, and the time is not over */
		:: else ->
			assert(seen);
			assert(seen_ok == (path == VTOE || inner == CONNECTED))
		fi
	};
end:
	false
}
