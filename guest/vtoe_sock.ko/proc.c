// SPDX-License-Identifier: GPL-2.0-only
/*
 * /proc/net/vnet_sock: every socket of the namespace, and which way it goes.
 * /proc/net/vnet_stat: counters; a reason's counter is "fallback_" and its name.
 */
#include "vtoe.h"

#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <net/net_namespace.h>
#include <net/netns/generic.h>

struct vtoe_net {
	u64 __percpu *stat;
};

static unsigned int net_id;
HLIST_HEAD(vtoe_sks);
DEFINE_SPINLOCK(vtoe_sks_lock);

static const char *const stat_names[] = {
#define X(name, str) [VTOE_STAT_##name] = str,
	VTOE_STATS(X)
#undef X
};
static_assert(ARRAY_SIZE(stat_names) == VTOE_STAT_REASON0);

void vtoe_stat_add(struct net *net, enum vtoe_stat stat, u64 count)
{
	struct vtoe_net *vn = net_generic(net, net_id);

	this_cpu_add(vn->stat[stat], count);
}

void vtoe_sks_add(struct vtoe_sock *vs)
{
	spin_lock_bh(&vtoe_sks_lock);
	hlist_add_head(&vs->sks_node, &vtoe_sks);
	spin_unlock_bh(&vtoe_sks_lock);
}

void vtoe_sks_del(struct vtoe_sock *vs)
{
	spin_lock_bh(&vtoe_sks_lock);
	hlist_del(&vs->sks_node);
	spin_unlock_bh(&vtoe_sks_lock);
}

/* Has another connection these two names? The port was not given by the kernel. */
bool vtoe_sks_taken(const struct vtoe_sock *vs)
{
	const struct vtoe_sock *other;
	bool taken = false;

	spin_lock_bh(&vtoe_sks_lock);
	hlist_for_each_entry(other, &vtoe_sks, sks_node) {
		u8 state = READ_ONCE(other->inet.sk.sk_state);

		taken = other != vs && net_eq(sock_net(&other->inet.sk), sock_net(&vs->inet.sk)) &&
			state != VTOE_SOCK_CLOSE && state != VTOE_SOCK_LISTEN &&
			other->local.port == vs->local.port &&
			other->remote.port == vs->remote.port &&
			vtoe_addr_same_host(&other->local, &vs->local) &&
			vtoe_addr_same_host(&other->remote, &vs->remote);
		if (taken)
			break;
	}
	spin_unlock_bh(&vtoe_sks_lock);
	return taken;
}

static void *sock_start(struct seq_file *seq, loff_t *pos)
	__acquires(&vtoe_sks_lock)
{
	spin_lock_bh(&vtoe_sks_lock);
	return seq_hlist_start_head(&vtoe_sks, *pos);
}

static void *sock_next(struct seq_file *seq, void *v, loff_t *pos)
{
	return seq_hlist_next(v, &vtoe_sks, pos);
}

static void sock_stop(struct seq_file *seq, void *v)
	__releases(&vtoe_sks_lock)
{
	spin_unlock_bh(&vtoe_sks_lock);
}

static void show_addr(struct seq_file *seq, const struct vtoe_addr *addr)
{
	if (addr->family == 6)
		seq_printf(seq, " [%pI6c]:%u", addr->addr, ntohs(addr->port));
	else
		seq_printf(seq, " %pI4:%u", addr->addr, ntohs(addr->port));
}

static const char *fabric_name(u16 fabric)
{
	switch (fabric) {
	case VTOE_FABRIC_LOCAL:
		return "local";
	case VTOE_FABRIC_TCP:
		return "tcp";
	case VTOE_FABRIC_VERBS:
		return "verbs";
	}
	return "-";
}

static int sock_show(struct seq_file *seq, void *v)
{
	static const char *const paths[] = { "-", "vtoe", "tcp" };
	struct vnet_so_path path;
	struct vtoe_sock *vs;
	struct sock *sk;
	u8 state;

	if (v == SEQ_START_TOKEN) {
		seq_puts(seq, "state local remote path reason sid cid fabric rxq txq uid inode\n");
		return 0;
	}
	vs = hlist_entry(v, struct vtoe_sock, sks_node);
	sk = vtoe_sock(vs);
	if (!net_eq(sock_net(sk), seq_file_net(seq)))
		return 0;
	/* The inner socket may go at any time: its state is in /proc/net/tcp. */
	state = READ_ONCE(sk->sk_state);
	vtoe_path_of(vs, &path);
	seq_puts(seq, path.path == VNET_PATH_TCP ? "TCP" : vtoe_sock_state_name(state));
	show_addr(seq, &vs->local);
	show_addr(seq, &vs->remote);
	seq_printf(seq, " %s %s %#x %#x %s %llu %llu %u %llu\n", paths[path.path],
		   path.reason_name, path.sid, vs->cid,
		   fabric_name(path.fabric), vtoe_readable(vs),
		   READ_ONCE(vs->snd_end) - READ_ONCE(vs->tx.una),
		   from_kuid_munged(seq_user_ns(seq), sk->sk_uid),
		   (u64)sock_i_ino(sk));
	return 0;
}

static const struct seq_operations sock_seq_ops = {
	.start = sock_start,
	.next = sock_next,
	.stop = sock_stop,
	.show = sock_show,
};

static int stat_show(struct seq_file *seq, void *v)
{
	struct vtoe_net *vn = net_generic(seq_file_single_net(seq), net_id);
	u32 i;
	int cpu;

	for (i = 0; i < VTOE_STAT_COUNT; i++) {
		u64 sum = 0;

		for_each_possible_cpu(cpu)
			sum += per_cpu_ptr(vn->stat, cpu)[i];
		if (i < VTOE_STAT_REASON0)
			seq_printf(seq, "%s %llu\n", stat_names[i], sum);
		else if (i > VTOE_STAT_REASON0)
			seq_printf(seq, "fallback_%s %llu\n",
				   vtoe_reason_name(i - VTOE_STAT_REASON0), sum);
	}
	return 0;
}

static int __net_init net_init(struct net *net)
{
	struct vtoe_net *vn = net_generic(net, net_id);

	vn->stat = __alloc_percpu(VTOE_STAT_COUNT * sizeof(u64), sizeof(u64));
	if (!vn->stat)
		return -ENOMEM;
	if (!proc_create_net("vnet_sock", 0444, net->proc_net, &sock_seq_ops,
			     sizeof(struct seq_net_private)))
		goto err_stat;
	if (!proc_create_net_single("vnet_stat", 0444, net->proc_net, stat_show, NULL))
		goto err_sock;
	return 0;

err_sock:
	remove_proc_entry("vnet_sock", net->proc_net);
err_stat:
	free_percpu(vn->stat);
	return -ENOMEM;
}

static void __net_exit net_exit(struct net *net)
{
	struct vtoe_net *vn = net_generic(net, net_id);

	remove_proc_entry("vnet_stat", net->proc_net);
	remove_proc_entry("vnet_sock", net->proc_net);
	free_percpu(vn->stat);
}

static struct pernet_operations net_ops = {
	.init = net_init,
	.exit = net_exit,
	.id = &net_id,
	.size = sizeof(struct vtoe_net),
};

int vtoe_proc_init(void)
{
	return register_pernet_subsys(&net_ops);
}

void vtoe_proc_exit(void)
{
	unregister_pernet_subsys(&net_ops);
}
