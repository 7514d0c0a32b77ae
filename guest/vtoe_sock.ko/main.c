// SPDX-License-Identifier: GPL-2.0-only
/* Start-up and shut-down of the module; the map is vtoe.h. */
#include "vtoe.h"

unsigned int vtoe_family = AF_INET_VNET_DEFAULT;
module_param_named(family, vtoe_family, uint, 0444);
MODULE_PARM_DESC(family, "number of the socket family (12, 18, 19, 22 or 23; default 19)");

struct workqueue_struct *vtoe_wq;

static int __init vtoe_init(void)
{
	int err;

	vtoe_wq = alloc_workqueue("vtoe", WQ_UNBOUND, 0);
	if (!vtoe_wq)
		return -ENOMEM;
	err = vtoe_proc_init();
	if (err)
		goto err_wq;
	err = vtoe_neigh_init();
	if (err)
		goto err_proc;
	err = vtoe_dev_init();
	if (err)
		goto err_neigh;
	err = vtoe_af_init();
	if (err)
		goto err_dev;
	err = vtoe_diag_init();
	if (err)
		goto err_af;
	if (list_empty(&vtoe_devs))
		pr_info("no device with offload yet: sockets of family %u run over TCP\n",
			vtoe_family);
	return 0;

err_af:
	vtoe_af_exit();
err_dev:
	vtoe_dev_exit();
err_neigh:
	vtoe_neigh_exit();
err_proc:
	vtoe_proc_exit();
err_wq:
	destroy_workqueue(vtoe_wq);
	return err;
}

static void __exit vtoe_exit(void)
{
	/* No socket is left: each holds the module. */
	vtoe_diag_exit();
	vtoe_af_exit();
	vtoe_dev_exit();
	vtoe_neigh_exit();
	rcu_barrier();
	destroy_workqueue(vtoe_wq);
	vtoe_proc_exit();
}

module_init(vtoe_init);
module_exit(vtoe_exit);

MODULE_DESCRIPTION("AF_INET_VNET: stream sockets over a virtual TCP offload engine");
MODULE_LICENSE("GPL");
MODULE_ALIAS_NETPROTO(AF_INET_VNET_DEFAULT);
