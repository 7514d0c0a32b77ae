// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The tables of vtoe_states.h: no row twice, every state reachable and left
 * again, what is not in a table is illegal, names for all; and what the ABI says
 * of them: both openings pass, queue pairs never go back, a broken connection can
 * only be closed, and whatever a guest or a peer does ends in CLOSED.
 */
#include "tap.h"
#include "vnet_vtoe.h"
#include "vtoe_states.h"

#define ROWS(table) (sizeof(table) / sizeof((table)[0]))

/* One machine, so that both are walked by the same code. */
struct machine {
	const char *name;
	const struct vtoe_transition *table;
	unsigned int rows, states, triggers;
	__u8 start, end; /* end: where no row leads out; start if there is none */
	__u8 (*next)(__u32 from, __u32 trigger);
	const char *(*state_name)(__u32 state);
};

static const struct machine machines[] = {
	{ "socket", vtoe_sock_transitions, ROWS(vtoe_sock_transitions),
	  VTOE_SOCK_STATE_COUNT, VTOE_SOCK_T_COUNT, VTOE_SOCK_CLOSE,
	  VTOE_SOCK_CLOSE, vtoe_sock_next, vtoe_sock_state_name },
	{ "connection", vtoe_conn_transitions, ROWS(vtoe_conn_transitions),
	  VTOE_CONN_STATE_COUNT, VTOE_CONN_T_COUNT, VTOE_CONN_IDLE,
	  VTOE_CONN_CLOSED, vtoe_conn_next, vtoe_conn_state_name },
};

static bool is_state(const struct machine *m, unsigned int state)
{
	return state < m->states && strcmp(m->state_name(state), "?") != 0;
}

static void test_rows(const struct machine *m)
{
	unsigned int i, j, bad = 0, twice = 0;

	for (i = 0; i < m->rows; i++) {
		const struct vtoe_transition *a = &m->table[i];

		bad += !is_state(m, a->from) || !is_state(m, a->to) ||
		       a->trigger >= m->triggers;
		for (j = 0; j < i; j++)
			if (m->table[j].from == a->from &&
			    m->table[j].trigger == a->trigger) {
				note("%s, trigger %u", m->state_name(a->from),
				     a->trigger);
				twice++;
			}
	}
	ok(!bad, "%s: rows name states and triggers that exist", m->name);
	ok(!twice, "%s: no row twice", m->name);
}

static void test_next(const struct machine *m)
{
	unsigned int from, trigger, i, wrong = 0, legal = 0;

	/* beyond the enums too: both come from elsewhere */
	for (from = 0; from < 300; from++)
		for (trigger = 0; trigger < 300; trigger++) {
			unsigned int want = VTOE_STATE_ILLEGAL;

			for (i = 0; i < m->rows; i++)
				if (m->table[i].from == from &&
				    m->table[i].trigger == trigger)
					want = m->table[i].to;
			wrong += m->next(from, trigger) != want;
			legal += m->next(from, trigger) != VTOE_STATE_ILLEGAL;
		}
	ok(!wrong, "%s: next is the table, all else illegal", m->name);
	ok(legal == m->rows, "%s: as many legal steps as rows", m->name);
}

/* States that can be reached from one, itself included, as a mask. */
static unsigned int reachable(const struct machine *m, unsigned int state)
{
	unsigned int mask = 1u << state, before = 0, i;

	while (mask != before) {
		before = mask;
		for (i = 0; i < m->rows; i++)
			if (mask & 1u << m->table[i].from)
				mask |= 1u << m->table[i].to;
	}
	return mask;
}

static void test_walk(const struct machine *m)
{
	unsigned int state, i, lost = 0, stuck = 0, endless = 0;

	for (state = 0; state < m->states; state++) {
		bool out = false;

		if (!is_state(m, state))
			continue;
		if (!(reachable(m, m->start) & 1u << state)) {
			note("%s is not reachable", m->state_name(state));
			lost++;
		}
		for (i = 0; i < m->rows; i++)
			out |= m->table[i].from == state;
		if (!out && state != m->end) {
			note("%s has no way out", m->state_name(state));
			stuck++;
		}
		if (!(reachable(m, state) & 1u << m->end)) {
			note("%s never ends", m->state_name(state));
			endless++;
		}
	}
	ok(!lost, "%s: every state is reachable", m->name);
	ok(!stuck, "%s: every state but the last has a way out", m->name);
	ok(!endless, "%s: every state can come to the end", m->name);
}

static void test_names(const struct machine *m, unsigned int count)
{
	unsigned int i, j, named = 0, same = 0;

	for (i = 0; i < m->states; i++) {
		named += is_state(m, i);
		for (j = 0; is_state(m, i) && j < i; j++)
			same += strcmp(m->state_name(i), m->state_name(j)) == 0;
	}
	ok(named == count, "%s: a name for each of %u states", m->name, count);
	ok(!same, "%s: no name twice", m->name);
	is_str(m->state_name(m->states), "?", "one behind the last has none");
	is_str(m->state_name(0xffffffff), "?", "nor has -1");
}

/* Runs triggers from a state; where they lead, or VTOE_STATE_ILLEGAL. */
static __u8 run(const struct machine *m, __u8 state, const int *triggers,
		unsigned int count)
{
	while (count-- && state != VTOE_STATE_ILLEGAL)
		state = m->next(state, *triggers++);
	return state;
}

#define SOCK(from, ...)                                            \
	run(&machines[0], VTOE_SOCK_##from, (int[]){ __VA_ARGS__ }, \
	    sizeof((int[]){ __VA_ARGS__ }) / sizeof(int))
#define CONN(from, ...)                                            \
	run(&machines[1], VTOE_CONN_##from, (int[]){ __VA_ARGS__ }, \
	    sizeof((int[]){ __VA_ARGS__ }) / sizeof(int))
#define S(trigger) VTOE_SOCK_T_##trigger
#define C(trigger) VTOE_CONN_T_##trigger

static void test_paths(void)
{
	is_int(SOCK(CLOSE, S(CONNECT), S(ESTABLISHED)), VTOE_SOCK_ESTABLISHED,
	       "socket: active open");
	is_int(SOCK(CLOSE, S(REQUEST), S(ESTABLISHED)), VTOE_SOCK_ESTABLISHED,
	       "socket: passive open");
	is_int(SOCK(CLOSE, S(LISTEN), S(UNLISTEN)), VTOE_SOCK_CLOSE,
	       "socket: listener");
	is_int(SOCK(ESTABLISHED, S(SHUTDOWN), S(ACKED), S(FIN)), VTOE_SOCK_CLOSE,
	       "socket: active close");
	is_int(SOCK(ESTABLISHED, S(SHUTDOWN), S(FIN), S(ACKED)), VTOE_SOCK_CLOSE,
	       "socket: simultaneous close");
	is_int(SOCK(ESTABLISHED, S(FIN), S(SHUTDOWN), S(ACKED)), VTOE_SOCK_CLOSE,
	       "socket: passive close");
	is_int(CONN(IDLE, C(CONNECT), C(ADDR), C(LANE), C(REP)),
	       VTOE_CONN_ESTABLISHED, "connection: active open");
	is_int(CONN(IDLE, C(CONNECT), C(ADDR), C(LANE), C(REP_RTU), C(RTU)),
	       VTOE_CONN_ESTABLISHED, "connection: active open with RTU");
	is_int(CONN(IDLE, C(REQ), C(ACCEPT)), VTOE_CONN_ESTABLISHED,
	       "connection: passive open");
	is_int(CONN(IDLE, C(REQ), C(ACCEPT_RTU), C(RTU)), VTOE_CONN_ESTABLISHED,
	       "connection: passive open with RTU");
	is_int(CONN(ESTABLISHED, C(LOCAL_FIN), C(REMOTE_FIN), C(CLOSE)),
	       VTOE_CONN_CLOSED, "connection: we shut down first");
	is_int(CONN(ESTABLISHED, C(REMOTE_FIN), C(LOCAL_FIN), C(CLOSE)),
	       VTOE_CONN_CLOSED, "connection: the peer shuts down first");
	is_int(CONN(ESTABLISHED, C(LOCAL_FIN), C(LOCAL_FIN)), VTOE_STATE_ILLEGAL,
	       "connection: no second FIN of ours");
	is_int(CONN(ESTABLISHED, C(REMOTE_FIN), C(REMOTE_FIN)),
	       VTOE_STATE_ILLEGAL, "connection: nor of the peer");
}

static void test_ends(void)
{
	unsigned int state, trigger, no_close = 0, no_reset = 0, alive = 0;

	for (state = 0; state < VTOE_CONN_STATE_COUNT; state++) {
		if (state == VTOE_CONN_CLOSED)
			continue;
		no_close += vtoe_conn_next(state, VTOE_CONN_T_CLOSE) !=
			    VTOE_CONN_CLOSED;
	}
	ok(!no_close, "connection: CLOSE ends every state");
	for (trigger = 0; trigger < VTOE_CONN_T_COUNT; trigger++)
		alive += vtoe_conn_next(VTOE_CONN_ERROR, trigger) !=
				 VTOE_STATE_ILLEGAL &&
			 trigger != VTOE_CONN_T_CLOSE;
	ok(!alive, "connection: a broken one can only be closed");
	for (state = 0; state < VTOE_SOCK_STATE_COUNT; state++)
		if (is_state(&machines[0], state) && state != VTOE_SOCK_CLOSE &&
		    state != VTOE_SOCK_LISTEN)
			no_reset += vtoe_sock_next(state, VTOE_SOCK_T_RESET) !=
				    VTOE_SOCK_CLOSE;
	ok(!no_reset, "socket: a reset closes every connection");
}

/* ---- queue pairs ---- */

static void test_queue_pairs(void)
{
	unsigned int i, back = 0, jump = 0, dead = 0;

	for (i = 0; i < ROWS(vtoe_conn_transitions); i++) {
		const struct vtoe_transition *t = &vtoe_conn_transitions[i];
		enum vtoe_qp_state from = vtoe_conn_qp_state(t->from);
		enum vtoe_qp_state to = vtoe_conn_qp_state(t->to);

		if (t->to == VTOE_CONN_CLOSED)
			continue; /* destroyed: RESET stands for none */
		dead += from == VTOE_QP_ERR;
		if (to == VTOE_QP_ERR)
			continue; /* from any state, IBTA 10.3.1 */
		back += to < from;
		/* REP and ACCEPT do RTR and RTS at once */
		jump += to > from + 1 &&
			!(from == VTOE_QP_INIT && to == VTOE_QP_RTS);
	}
	ok(!back, "queue pair: never goes back but to be destroyed");
	ok(!jump, "queue pair: leaves out no state but RTR, which REP implies");
	ok(!dead, "queue pair: stays in error until it is destroyed");
	is_int(vtoe_conn_qp_state(VTOE_CONN_REQ_SENT), VTOE_QP_INIT,
	       "INIT while the request is out");
	is_int(vtoe_conn_qp_state(VTOE_CONN_ESTABLISHED), VTOE_QP_RTS,
	       "RTS when established");
	is_int(vtoe_conn_qp_state(99), VTOE_QP_ERR, "ERR for no state");
}

/* ---- reasons ---- */

static void test_reasons(void)
{
	unsigned int i, j, bad = 0;

	for (i = 0; i < VTOE_REASON_COUNT; i++) {
		const char *name = vtoe_reason_name(i);

		/* struct vnet_so_path holds it with its NUL */
		bad += strcmp(name, "unknown") == 0 || strlen(name) >= 32;
		for (j = 0; j < i; j++)
			bad += strcmp(name, vtoe_reason_name(j)) == 0;
	}
	ok(!bad, "reasons: each has a name of its own, of less than 32 bytes");
	is_str(vtoe_reason_name(VTOE_REASON_COUNT), "unknown",
	       "reasons: one behind the last");
}

int main(void)
{
	unsigned int i;
	static const unsigned int counts[] = {
#define X(...) +1
		VTOE_SOCK_STATES(X), VTOE_CONN_STATES(X)
#undef X
	};

	for (i = 0; i < 2; i++) {
		test_rows(&machines[i]);
		test_next(&machines[i]);
		test_walk(&machines[i]);
		test_names(&machines[i], counts[i]);
	}
	test_paths();
	test_ends();
	test_queue_pairs();
	test_reasons();
	return tap_done();
}
