# SPDX-License-Identifier: GPL-2.0-or-later
#
# make             the daemons, the preload library and the test programs
# make modules     the guest modules for the guest kernels of the tests
# make demo        two stock VMs, MPI and iperf3 over the offload and over plain TCP
#                  FAST=1: user-mode Linux VMs; QEMU=7.2: Debian 12's own QEMU
# make check       all tests; last line "N passed, N failed, N skipped"
# make bench       the benchmarks, table and JSON under build/results/;
#                  KIND=stock: with stock VMs instead of fast ones
# make check-rdma  the verbs fabric: agents in a VM with soft RDMA, and guests between such hosts
# make bench-rdma  the same hosts' figures: offload, TCP, raw RC
# make soak        what takes longer than a check should
# make lint        dependencies, sparse, shellcheck, spelling
# make install     DESTDIR, PREFIX: the daemons and all that is not a module, with man pages
# make install-guest  in a guest: the modules for KDIR (default: the running kernel's), library and programs
#
# Everything is built under $(O); the source tree stays clean.

O       ?= build
PREFIX  ?= /usr/local
JOBS    ?= $(shell nproc)
CC      ?= gcc
CFLAGS  ?= -O2 -g
WARN    := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	   -Wpointer-arith -Wno-unused-parameter
HARDEN  := -fstack-protector-strong -D_FORTIFY_SOURCE=2 -fPIE
HOST_CFLAGS = -std=gnu11 -D_GNU_SOURCE $(WARN) $(HARDEN) $(CFLAGS) \
	      -Iproto -Ihost/common
HOST_LDFLAGS = -pie -Wl,-z,relro,-z,now $(LDFLAGS)
# make V=1 shows whole command lines.
SHOW     = $(if $(V),,@echo "  BUILD $@"; )
# Unit tests and fuzz replays always run under the sanitizers.
SAN     := -fsanitize=address,undefined -fno-sanitize-recover=all \
	   -fno-omit-frame-pointer

obj = $(patsubst %.c,$(O)/obj/%.o,$(1))
sanobj = $(patsubst %.c,$(O)/san/%.o,$(1))

COMMON_SRC := $(wildcard host/common/*.c)
SHIM_SRC   := $(wildcard host/shim/*.c)
AGENT_SRC  := $(wildcard host/ib_agent/*.c)

SHIM_LIBS  := -lsystemd -lseccomp
AGENT_LIBS := -lrdmacm -libverbs -lssl -lcrypto -lsystemd -lseccomp

DAEMONS := $(O)/host/vnet-shim $(O)/host/vnet-ibagent
GUEST   := $(O)/guest/libvnetsock.so $(O)/guest/vnet-run $(O)/guest/vnet-ss $(O)/guest/vnet-takeover
# Not for the demo: takes clang and libbpf.
BPF     := $(O)/guest/vnet-bpf

.PHONY: all setup modules demo demo-programs check check-fast check-rdma bench bench-rdma soak lint install install-guest clean tests
all: $(DAEMONS) $(GUEST) $(BPF) tests

# Objects that only a test program needs are kept, too.
.SECONDARY:

# ---- daemons ----

$(O)/host/vnet-shim: $(call obj,$(SHIM_SRC) $(COMMON_SRC))
	@mkdir -p $(@D)
	$(SHOW)$(CC) $(HOST_LDFLAGS) -o $@ $^ $(SHIM_LIBS)

$(O)/host/vnet-ibagent: $(call obj,$(AGENT_SRC) $(COMMON_SRC))
	@mkdir -p $(@D)
	$(SHOW)$(CC) $(HOST_LDFLAGS) -o $@ $^ $(AGENT_LIBS)

$(O)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(SHOW)$(CC) $(HOST_CFLAGS) -I$(<D) -Itests/unit -MMD -MP -c -o $@ $<

$(O)/san/%.o: %.c
	@mkdir -p $(@D)
	$(SHOW)$(CC) $(HOST_CFLAGS) -U_FORTIFY_SOURCE $(SAN) -I$(<D) -Itests/unit -MMD -MP -c -o $@ $<

-include $(shell find $(O)/obj $(O)/san -name '*.d' 2>/dev/null)

# ---- guest: preload library ----

VNS_SRC := $(filter-out %/vnet-run.c %/vnet-bpf.c %.bpf.c,$(wildcard guest/libvnetsock/*.c))

$(O)/guest/libvnetsock.so: $(VNS_SRC) $(wildcard guest/libvnetsock/*.h) proto/vnet_sock.h
	@mkdir -p $(@D)
	$(SHOW)$(CC) -std=gnu11 -D_GNU_SOURCE $(WARN) $(CFLAGS) -fPIC -shared \
		-fvisibility=hidden -fexceptions -Wl,-z,now -Wl,-z,defs \
		-Wl,-soname,libvnetsock.so -Iproto -o $@ $(VNS_SRC)

$(O)/guest/vnet-run: guest/libvnetsock/vnet-run.c
	@mkdir -p $(@D)
	$(SHOW)$(CC) -std=gnu11 -D_GNU_SOURCE $(WARN) $(HARDEN) $(CFLAGS) -pie -o $@ $<

$(O)/guest/vnet-ss: guest/vnet-ss.c proto/vnet_sock.h proto/vnet_vtoe.h proto/vtoe_states.h
	@mkdir -p $(@D)
	$(SHOW)$(CC) -std=gnu11 -D_GNU_SOURCE $(WARN) $(HARDEN) $(CFLAGS) -pie -Iproto -o $@ $< -lmnl

# The headers of BPF programs want asm/, which is the host's.
$(O)/guest/vnet-bpf.bpf.o: guest/libvnetsock/vnet-bpf.bpf.c guest/libvnetsock/vnet-bpf.h proto/vnet_sock.h
	@mkdir -p $(@D)
	$(SHOW)clang -O2 -g -target bpf -Wall -Wextra -Wno-unused-parameter \
		-idirafter /usr/include/$(shell $(CC) -print-multiarch) -Iproto -c -o $@ $<

$(O)/guest/vnet-bpf: guest/libvnetsock/vnet-bpf.c guest/libvnetsock/vnet-bpf.h $(O)/guest/vnet-bpf.bpf.o
	$(SHOW)$(CC) -std=gnu11 -D_GNU_SOURCE $(WARN) $(HARDEN) $(CFLAGS) -pie -Iproto \
		-DVNET_BPF_OBJECT='"$(O)/guest/vnet-bpf.bpf.o"' -o $@ $< -lbpf

$(O)/guest/vnet-takeover: guest/vnet-takeover
	@install -D $< $@

# ---- guest: kernel modules, built in a mirror of symbolic links ----

# Not with our make's flags: it runs makes of its own.
UML_BUILD := env -u MAKEFLAGS -u MFLAGS tests/uml/build

# modules_for KERNEL, COMMAND that prints its directory, VARIABLES
define modules_for
$(O)/guest/$(1)/.built: $(shell find guest/*.ko guest/Kbuild proto -type f 2>/dev/null)
	@mkdir -p $(O)/mirror/$(1) $(O)/guest/$(1)
	@cp -rsf $(CURDIR)/guest $(CURDIR)/proto $(O)/mirror/$(1)/
	@echo "  BUILD guest modules for the $(1) kernel"
	@$$(MAKE) -s -C $$$$($(2) $(1))/build $(3) \
		M=$(abspath $(O))/mirror/$(1)/guest modules
	@for m in vnet_pv vtoe_sock; do \
		strip --strip-debug -o $(O)/guest/$(1)/$$$$m.ko \
			$(O)/mirror/$(1)/guest/$$$$m.ko/$$$$m.ko; done
	@touch $$@
endef
$(eval $(call modules_for,fast,$(UML_BUILD),ARCH=um))
$(eval $(call modules_for,debug,$(UML_BUILD),ARCH=um))
# Without type information of the modules, which would take pahole.
$(eval $(call modules_for,6.1,tests/setup/stock-kernel,CONFIG_DEBUG_INFO_BTF_MODULES=))
$(eval $(call modules_for,6.12,tests/setup/stock-kernel,CONFIG_DEBUG_INFO_BTF_MODULES=))
$(eval $(call modules_for,backports,tests/setup/stock-kernel,CONFIG_DEBUG_INFO_BTF_MODULES=))
modules: $(foreach k,fast debug 6.1 6.12 backports,$(O)/guest/$(k)/.built)

# ---- test programs ----

include tests/Makefile.inc
tests: $(TEST_PROGRAMS)

# ---- what people call ----

setup:
	@tests/setup/install

# Packages for the other kinds of VMs only where they are asked for. exec: on Ctrl-C make waits for what it started itself.
demo:
	@tests/setup/install $(if $(FAST)$(QEMU),,demo)
	@FAST='$(FAST)' QEMU='$(QEMU)' exec tests/demo

demo-programs: $(DAEMONS) $(GUEST) $(MPI)

# Guest kernels first: they take longest and say how far they are.
check: setup
	@$(UML_BUILD) fast >/dev/null
	@$(UML_BUILD) debug >/dev/null
	@tests/setup/guest-root >/dev/null
	@tests/setup/qemu-root >/dev/null
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@$(MAKE) --no-print-directory modules
	@tests/run --beside --tier unit,vm,debug

# Without virtual machines: seconds.
check-fast: all
	@tests/run --beside --tier unit

check-rdma: setup
	@$(UML_BUILD) fast >/dev/null
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@$(MAKE) --no-print-directory $(O)/guest/fast/.built
	@tests/run --tier vm,rdma --only 'rdma*'

bench-rdma: setup
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@$(MAKE) --no-print-directory $(O)/guest/fast/.built
	@tests/bench/rdma
	@tests/bench/rdma-agent

bench: setup
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@$(MAKE) --no-print-directory $(O)/guest/$(if $(filter stock,$(KIND)),6.12,fast)/.built
	@tests/bench/run $(if $(KIND),--kind $(KIND))

soak: setup
	@$(MAKE) --no-print-directory -j$(JOBS) all
	@$(MAKE) --no-print-directory modules
	@tests/run --tier soak

lint:
	@tests/lint

install: $(DAEMONS) $(BPF) install-programs
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/sbin $(DAEMONS)
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin $(BPF)
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man8 host/*/*.8

.PHONY: install-programs
install-programs: $(GUEST)
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin $(O)/guest/vnet-run $(O)/guest/vnet-ss
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib $(O)/guest/libvnetsock.so
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/sbin guest/vnet-takeover
	install -D -m 644 guest/modprobe.conf $(DESTDIR)$(PREFIX)/lib/modprobe.d/vnet.conf
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man8 guest/*.8
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man7 guest/libvnetsock/*.7
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man1 guest/*.1 guest/libvnetsock/*.1

# Modules are built in a mirror of links, as above; unsigned, since the key of the distribution's kernel is not here.
KDIR ?= /lib/modules/$(shell uname -r)/build
MIRROR = $(abspath $(O))/mirror/this
install-guest: install-programs
	@[ -e $(KDIR)/Makefile ] || { echo "no kernel headers in $(KDIR): install linux-headers-amd64, or set KDIR" >&2; exit 1; }
	mkdir -p $(MIRROR)
	cp -rsf $(CURDIR)/guest $(CURDIR)/proto $(MIRROR)/
	$(MAKE) -C $(KDIR) M=$(MIRROR)/guest CONFIG_DEBUG_INFO_BTF_MODULES= modules
	$(MAKE) -C $(KDIR) M=$(MIRROR)/guest CONFIG_MODULE_SIG_ALL= $(if $(DESTDIR),INSTALL_MOD_PATH=$(DESTDIR)) modules_install
	depmod $(if $(DESTDIR),-b $(DESTDIR)) $$(modinfo -F vermagic $(MIRROR)/guest/vnet_pv.ko/vnet_pv.ko | cut -d' ' -f1)

clean:
	rm -rf $(O)
