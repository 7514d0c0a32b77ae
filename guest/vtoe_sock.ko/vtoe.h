/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The socket family AF_INET_VNET: map of the module.
 *
 * A socket takes one of two ways, decided at connect() or, for a child, by who
 * connected: *vtoe*, where its bytes go through the work queues of a device
 * (send.c, recv.c), or *tcp*, where every call goes on to the inner TCP socket
 * (fallback.c). The inner socket is made with the socket. It also binds and
 * listens, so that ports are shared with the guest's TCP, and it keeps the
 * options of the levels IP, IPV6 and TCP.
 *
 * One message from send() to the peer's recv():
 *   vtoe_sendmsg -> tx_add -> vtoe_xmit -> vtoe_swq_post      | send.c, rings.c
 *   agent ... agent                                           |
 *   vtoe_poll_napi -> vtoe_rx_message -> rx_insert            | rings.c, recv.c
 *   vtoe_recvmsg -> consume -> vtoe_rx_repost, vtoe_send_credit
 * and back: the credit's ack frees the sender's chunks (vtoe_tx_credit).
 *
 * Locks, outer to inner:
 *   rtnl                       devices come and go
 *   lock_sock(sk)              one user of the socket; path, mode, inner; may
 *                              wait for as long as a program's memory does
 *     vtoe_devs_mutex          devices, listeners, their announcements, and the
 *                              way out of LISTEN; nobody waits for a socket in it
 *     lock_sock(inner)         never the other way round: the inner socket's
 *                              callbacks only take its sk_callback_lock
 *   vs->lock (bh)              what user and NAPI share: state, sk_shutdown,
 *                              both queues, credits, wmem accounting
 *     listener's vs->lock is never taken together with a child's
 *   dev->pool_lock, dev->rwq_lock, dev->swq_lock, dev->cr_lock,
 *   sid xarray, sks lock,
 *   vs->work_lock (bh)         leaves, none inside another
 *
 * The head of the receive queue is taken out under lock_sock *and* vs->lock, so
 * a reader that has lock_sock may copy from it without vs->lock.
 *
 * References:
 *   struct sock    the user's file, or the accept queue; an entry of the SID
 *                  table; a command on its way; a message in the SWQ ring;
 *                  a delayed work that is pending; a place in a waiting list
 *   vtoe_sid       the table; vs->conn or the listener's list; a command
 *   vtoe_dev       its driver binding; each vtoe_sid
 *   module         by the family while socket() runs and by sk_prot->owner
 *                  while a socket lives
 */
#ifndef VTOE_H
#define VTOE_H

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bvec.h>
#include <linux/ipv6.h>
#include <linux/kref.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/tcp.h>
#include <linux/virtio.h>
#include <linux/workqueue.h>
#include <net/inet_sock.h>
#include <net/sock.h>

#include "compat.h"
#include "credit.h"
#include "vnet_sock.h"
#include "vnet_vtoe.h"
#include "vtoe_bus.h"
#include "vtoe_states.h"

#define VTOE_NEIGH_TIMEOUT (5 * HZ / 2)	/* for the MAC: a lost probe is sent again after 1 s */
#define VTOE_CONNECT_TIMEOUT (30 * HZ)	/* the agent gives up earlier */
#define VTOE_ORPHAN_TIMEOUT (60 * HZ)	/* closed, for the peer to close (FIN_WAIT2) */
#define VTOE_UNREAD_TIMEOUT (900 * HZ)	/* closed, for the peer to read on */
#define VTOE_ACK_DELAY (HZ / 25)
#define VTOE_CORK_DELAY (HZ / 5)
/* With the header, what every RDMA device takes as one element (siw: 6). */
#define VTOE_CHUNK_FRAGS 5
#define VTOE_SNDBUF_DEFAULT (2 << 20)
#define VTOE_RCVBUF_DEFAULT (4 << 20)

struct vtoe_dev;
struct vtoe_sid;

/* Counters, /proc/net/vnet_stat. */
#define VTOE_STATS(X)                                                    \
	X(SOCKETS, "sockets")		 /* made by socket() */          \
	X(ACTIVE, "offloaded_active")	 /* connect() over the offload */ \
	X(PASSIVE, "offloaded_passive")	 /* accepted over the offload */ \
	X(ACCEPT_TCP, "accepted_tcp")	 /* accepted from plain TCP */   \
	X(FALLBACKS, "fallbacks")                                        \
	X(REJECTS, "rejects")		 /* requests of peers refused */ \
	X(RESETS, "resets")                                              \
	X(TX_MSGS, "tx_messages")                                        \
	X(TX_BYTES, "tx_bytes")                                          \
	X(TX_CREDITS, "tx_credit_messages")                              \
	X(TX_BLOCKED, "tx_no_credit")                                    \
	X(TX_RING_FULL, "tx_ring_full")                                  \
	X(RX_MSGS, "rx_messages")                                        \
	X(RX_BYTES, "rx_bytes")                                          \
	X(RX_STRAY, "rx_stray")		 /* for a socket that is gone */ \
	X(RX_MALFORMED, "rx_malformed")                                  \
	X(EVENTS, "events")                                              \
	X(COMMANDS, "commands")                                          \
	X(INTERRUPTS, "interrupts")                                      \
	X(KICKS, "kicks")                                                \
	X(WAKEUPS, "wakeups")

enum vtoe_stat {
#define X(name, str) VTOE_STAT_##name,
	VTOE_STATS(X)
#undef X
	/* then one counter for each reason of a fallback */
	VTOE_STAT_REASON0,
	VTOE_STAT_COUNT = VTOE_STAT_REASON0 + VTOE_REASON_COUNT,
};

/* A message to send: bytes of the stream, kept until the peer has read them. */
struct vtoe_chunk {
	struct list_head node;
	refcount_t refs;	/* queue, ring */
	struct vtoe_sock *vs;	/* while in the ring: with a reference */
	u64 offset;
	u32 len;
	u32 truesize;
	u16 nr_frags;
	bool urgent;		/* its last byte is */
	struct ubuf_info *uarg;	/* the program's own pages: told when it is freed */
	struct vtoe_msg_hdr hdr;
	struct bio_vec frag[VTOE_CHUNK_FRAGS];
};

/* A receive buffer. */
struct vtoe_rxbuf {
	struct list_head node;
	u64 offset;
	u32 len;
	u32 epoch;	/* of the device when it was posted */
	u8 class;
	bool lent;	/* another is in the ring in its place: not the pool's */
	u8 order;	/* of each page */
	u16 nr_pages;
	struct vtoe_msg_hdr hdr;
	struct page *page[];
};

/* An event buffer. */
struct vtoe_evbuf {
	struct vtoe_event ev;
	bool posted;
};

/* A command on its way. */
struct vtoe_cr {
	struct list_head node;
	struct vtoe_sid *entry;	/* whom it is about, or NULL */
	struct sock *sk;	/* likewise */
	void (*done)(struct vtoe_dev *dev, struct vtoe_cr *cr, u32 status);
	struct completion *waiter;
	u32 status;
	bool embedded;		/* in its vtoe_sid */
	bool lazy;		/* its answer can wait for the next interrupt */
	bool quiet;		/* and so can the command */
	struct vtoe_cmd cmd;
	struct vtoe_reply reply;
};

/* A socket id of one device: a connection, or the announcement of a listener. */
struct vtoe_sid {
	union {
		struct list_head node;	/* vs->announced */
		struct rcu_head rcu;	/* once nobody has it */
	};
	refcount_t refs;
	u32 sid;
	u32 epoch;
	struct vtoe_sock *vs;
	struct vtoe_dev *dev;
	bool listener;
	bool known;	/* SOCKET or ACCEPT was given for it */
	bool closing;	/* CLOSE was given, or need not be; vs->lock */
	bool gone;	/* out of the table */
	struct vtoe_cr close_cr; /* closing must not fail */
};
static_assert(sizeof(struct vtoe_sid) <= 256); /* each connection has one */

/* The urgent byte: none, there to be had by MSG_OOB, or had. */
enum { VTOE_URG_NONE, VTOE_URG_VALID, VTOE_URG_READ };

struct vtoe_sock {
	/*
	 * First: what the core, inet and inet6 take a stream socket of
	 * AF_INET or AF_INET6 and IPPROTO_TCP for. sk_is_tcp() is true, so
	 * the room is that of a tcp_sock, all zero behind inet_sock.
	 */
	union {
		struct inet_sock inet;
		struct tcp_sock as_tcp;
	};
	struct hlist_node sks_node; /* vtoe_sks */

	/* lock_sock */
	struct socket *inner;
	void (*inner_data_ready)(struct sock *sk);
	void (*inner_state_change)(struct sock *sk);
	void (*inner_write_space)(struct sock *sk);
	void (*inner_error_report)(struct sock *sk);
	bool inner_err_copied;
	u8 mode;	/* VNET_MODE_* */
	u8 path;	/* VNET_PATH_*, changes once for a connection */
	u8 pinned;	/* enum vtoe_reason: to TCP, or NONE */
	bool accept_turn;
	bool nodelay, cork, quickack;
	u8 defer;	/* TCP_DEFER_ACCEPT, in seconds */
	int keepidle, keepintvl, keepcnt, user_timeout;
	u32 reason;	/* why path is TCP, or why the connection ended */
	struct vtoe_addr local, remote;
	struct vtoe_told *told;	/* children have their listener's; vs->lock, too */
	struct list_head announced; /* listener: vtoe_sid */
	struct list_head listeners; /* node in all listeners, vtoe_devs_mutex */

	/* connecting */
	struct list_head neigh_node;
	struct neighbour *neigh;
	unsigned long deadline;
	u32 fail_reason; /* set in softirq: the opening failed */
	bool failed;
	u8 next_hop[ETH_ALEN];

	struct delayed_work work;
	spinlock_t work_lock; /* work_at, and who arms it */
	unsigned long work_at; /* while it is pending; jiffies */

	spinlock_t lock; /* everything below; see the top */
	struct vtoe_sid *conn;
	u32 cid;
	u16 fabric;

	/* send queue: [una .. snd_nxt .. snd_end) */
	struct list_head tx_queue;
	struct vtoe_chunk *tx_next; /* first that is not posted */
	struct vtoe_tx_credit tx;
	u64 snd_nxt, snd_end;
	bool tx_hold;	/* the last chunk waits for more (MSG_MORE, cork) */
	unsigned long hold_until;
	bool tx_full;	/* the program found no room in the send queue */
	bool tx_blocked; /* what is queued waits for the peer to read, */
	unsigned long blocked_since; /* jiffies: TCP_USER_TIMEOUT */
	bool want_told;
	bool credit_owed; /* a message that was to tell found no room */
	struct list_head credit_node; /* waits for buffers to grant; pool_lock */
	struct list_head swq_node; /* waits for room in the SWQ */

	/* receive queue, by offset */
	struct list_head rx_queue;
	struct vtoe_rx_credit rx;
	u64 rcv_nxt;	/* everything before it is here */
	u64 rcv_final;	/* U64_MAX: no FIN yet */
	u64 urg_pos;	/* the urgent byte's place, if there is one: urgent.c */
	u8 urg;		/* VTOE_URG_* */
	u8 urg_byte;

	/* listener: children; child: its place there */
	struct list_head accept_queue;
	struct list_head accept_node;
	struct sock *listener; /* reference, until queued */
	bool deferred;	/* TCP_DEFER_ACCEPT: until its first bytes come */
	u32 accept_len;	/* queued and being answered */

#if IS_ENABLED(CONFIG_IPV6)
	struct ipv6_pinfo pinet6; /* last: VTOE_PROTO_SIZE */
#endif
};

/* A device with offload. */
struct vtoe_dev {
	struct list_head node; /* vtoe_devs */
	struct kref ref;
	struct rcu_head rcu;
	struct vnpv_vtoe *vtoe;	/* it, netdev and the queues: only while epoch lasts */
	struct net_device *netdev;
	struct virtqueue *cr, *eq, *swq, *rwq[VNET_RWQ_CLASSES];
	u32 rwq_buf_size[VNET_RWQ_CLASSES];
	u32 mtu;
	struct napi_struct napi;
	struct work_struct state_work;
	struct work_struct grow_work;
	u32 epoch;	/* of our buffers and connections; 0: none are alive */
	u32 last_epoch;
	u32 dead_epoch;	/* the host's, of the agent that DEVICE_REMOVAL took away */
	u32 host_epoch;	/* the host's, while we have one of our own */
	bool ready;	/* HELLO is answered; commands may be given */
	bool removed;
	bool balloon;	/* one came since the HELLO */
	struct notifier_block balloon_nb;
	u32 max_sockets;
	u64 features;	/* VTOE_F_* of the agent */
	u32 why_not;	/* enum vtoe_reason while not ready */

	spinlock_t cr_lock; /* CR, cr_queue, cr_open */
	struct list_head cr_queue; /* found no room in the ring */
	bool cr_open;	/* the ring may be used */
	u32 cr_used;
	u32 cr_urgent;	/* commands under way that are not lazy */
	struct delayed_work lazy_work;
	bool lazy_slow;	/* it comes for the SWQ alone */

	spinlock_t swq_lock; /* SWQ, swq_waiters */
	struct list_head swq_waiters;
	u32 swq_used;

	spinlock_t rwq_lock; /* RWQs */
	u32 rwq_posted[VNET_RWQ_CLASSES];
	struct list_head unposted; /* found no room in the ring; not in the pool */

	spinlock_t pool_lock; /* pool, and every rx credit against it */
	struct vtoe_pool pool;
	struct list_head credit_waiters;

	struct vtoe_evbuf *events;
	u32 nr_events;
};

static inline struct vtoe_sock *vtoe_sk(const struct sock *sk)
{
	return (struct vtoe_sock *)sk;
}

static inline struct sock *vtoe_sock(struct vtoe_sock *vs)
{
	return &vs->inet.sk;
}

static inline bool vtoe_is_tcp(const struct vtoe_sock *vs)
{
	/* pairs with vtoe_take_tcp() */
	return smp_load_acquire(&vs->path) == VNET_PATH_TCP;
}

/*
 * The peer has more to send and nothing to send it with until something is
 * read: what is here must do, whatever amount a reader waits for.
 */
static inline bool vtoe_rx_starved(const struct vtoe_sock *vs)
{
	return READ_ONCE(vs->rx.want) &&
	       READ_ONCE(vs->rx.limit[VNET_RWQ_SMALL]) == READ_ONCE(vs->rx.got[VNET_RWQ_SMALL]);
}

static inline u64 vtoe_readable(const struct vtoe_sock *vs)
{
	return READ_ONCE(vs->rcv_nxt) - READ_ONCE(vs->rx.consumed);
}

/* main.c */
extern unsigned int vtoe_family;
extern struct workqueue_struct *vtoe_wq;

/* af_vnet.c */
extern struct proto vtoe_prot;
extern struct kmem_cache *vtoe_chunk_cache;
extern const struct proto_ops vtoe_ops;
void vtoe_sk_init(struct sock *sk);
void vtoe_socket_init(struct socket *sock);
struct sock *vtoe_sk_alloc(struct net *net, int family, gfp_t gfp, int kern);
void vtoe_set_state(struct vtoe_sock *vs, enum vtoe_sock_trigger trigger);
/*
 * After delay at most, in process context, under lock_sock: close.c,
 * vtoe_sock_work(), which looks for itself what is due.
 */
void vtoe_work_in(struct vtoe_sock *vs, unsigned long delay);
void vtoe_work_cancel(struct vtoe_sock *vs);
int vtoe_af_init(void);
void vtoe_af_exit(void);

/* inet_proto.c */
int vtoe_inet_init_sock(struct sock *sk);
void vtoe_inet_destroy_sock(struct sock *sk);
void vtoe_inet_unhash(struct sock *sk);
int vtoe_inet_init(void);
void vtoe_inet_exit(void);

/* addr.c */
int vtoe_addr_from_user(const struct sock *sk, const struct vtoe_sockaddr *uaddr, int len,
			struct vtoe_addr *addr);
int vtoe_addr_to_user(const struct sock *sk, const struct vtoe_addr *addr,
		      struct sockaddr_storage *out);
bool vtoe_addr_any(const struct vtoe_addr *addr);
bool vtoe_addr_is_local(struct net *net, struct net_device *dev,
			const struct vtoe_addr *addr);
struct net_device *vtoe_addr_netdev(struct net *net, const struct vtoe_addr *addr);
bool vtoe_addr_is_on(struct net *net, const struct net_device *dev,
		     const struct vtoe_addr *addr);
bool vtoe_addr_is_martian(struct net *net, struct net_device *dev,
			  const struct vtoe_addr *local, const struct vtoe_addr *remote);
bool vtoe_addr_same_host(const struct vtoe_addr *a, const struct vtoe_addr *b);
void vtoe_addr_of_inner(struct vtoe_sock *vs);
void vtoe_set_addrs(struct vtoe_sock *vs);
int vtoe_getname(struct socket *sock, struct sockaddr *uaddr, int peer);

/* connect.c */
int vtoe_bind(struct socket *sock, struct vtoe_sockaddr *uaddr, int len);
int vtoe_renew(struct socket *sock); /* lock_sock */
int vtoe_connect(struct socket *sock, struct vtoe_sockaddr *uaddr, int len, int flags);
void vtoe_connect_established(struct vtoe_sock *vs, const struct vtoe_event *ev);
void vtoe_connect_failed(struct vtoe_sock *vs, u32 reason); /* any context */
void vtoe_connect_work(struct vtoe_sock *vs); /* lock_sock held */

/* neigh.c */
int vtoe_neigh_start(struct vtoe_sock *vs, struct dst_entry *dst,
		     const struct vtoe_addr *addr);
int vtoe_neigh_check(struct vtoe_sock *vs); /* 0: vs->next_hop, -EAGAIN, -EHOSTUNREACH */
void vtoe_neigh_stop(struct vtoe_sock *vs);
int vtoe_neigh_init(void);
void vtoe_neigh_exit(void);

/* listen.c */
int vtoe_listen(struct socket *sock, int backlog);
int vtoe_accept(struct socket *sock, struct socket *newsock, VTOE_ACCEPT_ARGS);
void vtoe_unlisten(struct vtoe_sock *vs);
void vtoe_connect_request(struct vtoe_dev *dev, struct vtoe_sid *entry,
			  const struct vtoe_event *ev);
void vtoe_announce_all(struct vtoe_dev *dev);
void vtoe_announce_moved(struct vtoe_dev *dev);
void vtoe_child_ready(struct vtoe_sock *vs, bool good);
void vtoe_child_answered(struct vtoe_sock *vs, u32 status);

/* send.c */
int vtoe_sendmsg(struct socket *sock, struct msghdr *msg, size_t len);
void vtoe_splice_eof(struct socket *sock);
bool vtoe_stream_memory_free(const struct sock *sk, int wake);
bool vtoe_xmit(struct vtoe_sock *vs); /* vs->lock; true: kick */
bool vtoe_tx_timed_out(struct vtoe_sock *vs);
bool vtoe_send_credit(struct vtoe_sock *vs, u8 flags); /* vs->lock; true: kick */
bool vtoe_tx_credit(struct vtoe_sock *vs, const struct vtoe_credit *credit, bool *kick);
void vtoe_tx_purge(struct vtoe_sock *vs);
void vtoe_chunk_put(struct vtoe_chunk *chunk);
void vtoe_push(struct vtoe_sock *vs);

/* recv.c */
int vtoe_recvmsg(struct socket *sock, struct msghdr *msg, size_t len, int flags);
void vtoe_rx_message(struct vtoe_dev *dev, struct vtoe_rxbuf *buf, u32 len);
void vtoe_rx_fin(struct vtoe_sock *vs, const struct vtoe_event *ev);
bool vtoe_rx_check_fin(struct vtoe_sock *vs);
void vtoe_rx_purge(struct vtoe_sock *vs);
bool vtoe_rx_ready(const struct vtoe_sock *vs);
void vtoe_credit_event(struct vtoe_sock *vs, const struct vtoe_event *ev);

/* urgent.c */
bool vtoe_urg_mark(struct vtoe_sock *vs, u64 pos, u8 byte); /* vs->lock */
u32 vtoe_urg_limit(struct vtoe_sock *vs, u64 pos, u32 n, bool copied, u32 *skip);
void vtoe_urg_passed(struct vtoe_sock *vs); /* vs->lock */
bool vtoe_urg_at_mark(const struct vtoe_sock *vs);
u64 vtoe_urg_inq(struct vtoe_sock *vs);
int vtoe_urg_recv(struct vtoe_sock *vs, struct msghdr *msg, size_t len, int flags);

/* poll.c */
__poll_t vtoe_poll(struct file *file, struct socket *sock, poll_table *wait);
int vtoe_ioctl(struct socket *sock, unsigned int cmd, unsigned long arg);
int vtoe_queued(struct sock *sk, int cmd, int *value);
void vtoe_write_space(struct sock *sk);

/* fallback.c */
int vtoe_inner_create(struct vtoe_sock *vs, bool child);
void vtoe_inner_adopt(struct vtoe_sock *vs, struct socket *inner, struct vtoe_sock *from);
void vtoe_inner_set_file(struct vtoe_sock *vs);
void vtoe_inner_release(struct vtoe_sock *vs);
void vtoe_inner_drop_port(struct sock *isk);
void vtoe_inner_unbind(struct vtoe_sock *vs);
void vtoe_inner_named(struct vtoe_sock *vs);
void vtoe_take_tcp(struct vtoe_sock *vs, u32 reason);
bool vtoe_may_fall_back(const struct vtoe_sock *vs);
int vtoe_reason_errno(u32 reason);
void vtoe_inner_sync_err(struct vtoe_sock *vs, int ret);
void vtoe_inner_copy_err(struct vtoe_sock *vs);
int vtoe_inner_sendmsg(struct vtoe_sock *vs, struct msghdr *msg, size_t len);
int vtoe_inner_recvmsg(struct vtoe_sock *vs, struct msghdr *msg, size_t len, int flags);

/* firewall.c */
bool vtoe_firewall_out(struct vtoe_sock *vs, struct dst_entry *dst);
bool vtoe_firewall_in(struct sock *listener, struct vtoe_dev *dev,
		      const struct vtoe_event *ev);

/* sockopt.c */
int vtoe_setsockopt(struct socket *sock, int level, int optname, sockptr_t optval,
		    unsigned int optlen);
int vtoe_getsockopt(struct socket *sock, int level, int optname, char __user *optval,
		    int __user *optlen);

int vtoe_set_rcvlowat(struct sock *sk, int val);
int vtoe_need_inner(struct vtoe_sock *vs); /* 0: it is there */
void vtoe_told_inherit(struct vtoe_sock *child, struct vtoe_sock *listener); /* any context */
void vtoe_told_put(struct vtoe_told *told);
void vtoe_sync_options(struct vtoe_sock *vs);
void vtoe_path_of(struct vtoe_sock *vs, struct vnet_so_path *path); /* lock_sock, or RCU */

/* close.c */
int vtoe_release(struct socket *sock);
int vtoe_shutdown(struct socket *sock, int how);
void vtoe_disconnect(struct vtoe_sock *vs);
void vtoe_reset(struct vtoe_sock *vs, u32 reason); /* any context */
bool vtoe_abort(struct vtoe_sock *vs, u32 reason); /* vs->lock */
void vtoe_close_check(struct vtoe_sock *vs);
unsigned long vtoe_orphan_timeout(const struct vtoe_sock *vs);
void vtoe_sock_work(struct work_struct *work);

/* sid.c */
struct vtoe_sid *vtoe_sid_create(struct vtoe_sock *vs, struct vtoe_dev *dev, gfp_t gfp);
struct vtoe_sid *vtoe_sid_find(struct vtoe_dev *dev, u32 sid); /* with a socket reference */
void vtoe_sid_get(struct vtoe_sid *entry);
void vtoe_sid_put(struct vtoe_sid *entry);
bool vtoe_sid_remove(struct vtoe_sid *entry);
void vtoe_sid_reset_all(struct vtoe_dev *dev);

/* dev.c */
struct vtoe_dev *vtoe_dev_find(const struct net_device *netdev, u32 *why_not);
struct vtoe_dev *vtoe_dev_any(struct net *net, u32 *why_not);
void vtoe_dev_get(struct vtoe_dev *dev);
void vtoe_dev_put(struct vtoe_dev *dev);
void vtoe_dev_removal(struct vtoe_dev *dev);
extern struct mutex vtoe_devs_mutex;
extern struct list_head vtoe_devs; /* vtoe_devs_mutex */
int vtoe_dev_init(void);
void vtoe_dev_exit(void);

/* rings.c */
int vtoe_poll_napi(struct napi_struct *napi, int budget);
int vtoe_swq_post(struct vtoe_sock *vs, struct vtoe_chunk *chunk);
void vtoe_swq_wait(struct vtoe_sock *vs); /* vs->lock */
void *vtoe_get_buf(struct vtoe_dev *dev, struct virtqueue *vq, u32 *len);
void vtoe_kick(struct vtoe_dev *dev, struct virtqueue *vq, spinlock_t *lock);
void vtoe_kick_swq(struct vtoe_dev *dev);
void vtoe_rx_repost(struct vtoe_dev *dev, struct vtoe_sock *vs, struct list_head *bufs);
void vtoe_rx_swap(struct vtoe_dev *dev, struct vtoe_sock *vs, struct vtoe_rxbuf *buf);
void vtoe_credit_wait(struct vtoe_sock *vs); /* vs->lock */
void vtoe_rwq_retry(struct vtoe_dev *dev);
u32 vtoe_rwq_fill(struct vtoe_dev *dev, u32 class, u32 count, gfp_t gfp);
int vtoe_eq_fill(struct vtoe_dev *dev);
void vtoe_rings_drain(struct vtoe_dev *dev);
bool vtoe_epoch_ok(const struct vtoe_sid *entry);
bool vtoe_pool_open(struct vtoe_dev *dev, struct vtoe_sock *vs);
void vtoe_pool_close(struct vtoe_sid *entry);

/* cmd.c */
struct vtoe_cr *vtoe_cr_alloc(u16 opcode, struct vtoe_sid *entry, gfp_t gfp);
bool vtoe_cr_send(struct vtoe_dev *dev, struct vtoe_cr *cr);
void vtoe_cr_lazy_work(struct work_struct *work);
void vtoe_cr_collect(struct vtoe_dev *dev, struct list_head *done);
void vtoe_cr_complete(struct vtoe_dev *dev, struct list_head *done);
void vtoe_cr_set_open(struct vtoe_dev *dev, bool open, struct list_head *rest);
u32 vtoe_cr_call(struct vtoe_dev *dev, struct vtoe_cmd *cmd, struct vtoe_reply *reply,
		 unsigned long timeout);
int vtoe_cmd_connect(struct vtoe_sock *vs);
int vtoe_cmd_announce(struct vtoe_sid *entry, const struct vtoe_addr *local, u32 backlog);
int vtoe_cmd_accept(struct vtoe_sid *entry, u32 cid);
void vtoe_cmd_reject(struct vtoe_dev *dev, u32 cid, u32 reason);
int vtoe_cmd_shutdown(struct vtoe_sid *entry, u64 final, gfp_t gfp);
void vtoe_cmd_close(struct vtoe_sid *entry, bool abort);

/* event.c */
void vtoe_event(struct vtoe_dev *dev, const struct vtoe_event *ev);

/* proc.c */
void vtoe_stat_add(struct net *net, enum vtoe_stat stat, u64 count);
static inline void vtoe_count(const struct sock *sk, enum vtoe_stat stat)
{
	vtoe_stat_add(sock_net(sk), stat, 1);
}
extern struct hlist_head vtoe_sks; /* all namespaces' */
extern spinlock_t vtoe_sks_lock;
void vtoe_sks_add(struct vtoe_sock *vs);
void vtoe_sks_del(struct vtoe_sock *vs);
bool vtoe_sks_taken(const struct vtoe_sock *vs);
int vtoe_proc_init(void);
void vtoe_proc_exit(void);

/* diag.c */
int vtoe_diag_init(void);
void vtoe_diag_exit(void);

#endif /* VTOE_H */
