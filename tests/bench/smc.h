/* SPDX-License-Identifier: GPL-2.0-or-later */
/* AF_SMC: set up, and which way its connections go. What smc-tools would do, which Debian does not package. */
#ifndef BENCH_SMC_H
#define BENCH_SMC_H

#ifndef AF_SMC
#define AF_SMC 43
#endif

/*
 * Makes SMC-Rv2 possible: the network interface and the RDMA device's first port get
 * the same physical network id, and this host a user-defined EID, which must be the
 * same on both. Root. Says what is wrong and returns -1.
 */
int smc_setup(const char *netdev, const char *rdma_device);

/* Of a connected socket of AF_SMC: "smc-r", or "smc-tcp", it fell back; "smc-?": the kernel does not say (smc_diag). */
const char *smc_path(int fd);

#endif /* BENCH_SMC_H */
