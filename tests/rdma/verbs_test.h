/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of verbs_test share: two guests on two hosts with soft RDMA. */
#ifndef VERBS_TEST_H
#define VERBS_TEST_H

#include "bed.h"

#define DEVICE "rxed"

extern struct bed bed;
extern const char *program; /* the daemon under test; NULL: the code linked in */
extern bool transfer_write; /* its `rdma-transfer`: write, not send */

bool start(const struct guest_options *opt, const char *extra);
void stop(void);
int shell(const char *command); /* its exit status */
/* Data that has gone by verbs, by no other way, into and out of guest memory. */
void over_verbs(const struct stream *a, const struct stream *b);
/* The device has seen no receiver that was not ready. */
void no_rnr(void);
/* It has seen one, and has given up. */
void rnr_exhausted(void);
/* Another device in its place, whose counters are 0 (but iWARP's). */
void renew_device(void);
void send_a_lot(struct stream *s);
/* Without the other guest, which is not there any more. */
bool broken_alone(struct stream *s);
unsigned int fabric_of(const struct stream *s);

/* verbs_write.c */
void by_transfer(void); /* a's data was written or sent, as the agents were told */
void test_write_wraps(void);
void test_write_one_side(void);
void test_write_offers(void);
void test_write_faults(void);

/* verbs_faults.c */
void test_loop_broken(void);
void test_peer_hangs(void);
void test_not_ready(void);
void test_ports_taken(void);
void test_watchdog(void);
void test_robbed(void);
void test_device_removed(void);

#endif /* VERBS_TEST_H */
