/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Signals: SIGHUP reads the configuration again, SIGUSR1 dumps the counters. */
#ifndef SHIM_RELOAD_H
#define SHIM_RELOAD_H

struct shim;

/* 0 or -errno, logged. */
int shim_signals_init(struct shim *shim);
void shim_signals_destroy(void);
/* Puts a changed configuration in force, or leaves the old one. */
int shim_reload(struct shim *shim);

#endif /* SHIM_RELOAD_H */
