/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Headers around a frame: the encapsulation, and the metadata of a frame that
 * is not segmented yet in its three encodings (train header, virtio_net_hdr,
 * wire meta).
 */
#ifndef SHIM_ENCAP_H
#define SHIM_ENCAP_H

#include <stdbool.h>
#include <stdint.h>
#include <linux/virtio_net.h>

#include "vnet_dev.h"
#include "vnet_train.h"

#define SHIM_ETH_LEN 14
/* The longest encapsulation that this version builds or takes. */
#define SHIM_ENCAP_MAX VNET_VXLAN_LEN
/* Meta, encapsulation and inner Ethernet header: what is verified, and sent as
 * our own copy. */
#define SHIM_HEAD_MAX (sizeof(struct vnet_wire_meta) + SHIM_ENCAP_MAX + SHIM_ETH_LEN)

/* ---- encapsulation ---- */

uint16_t shim_encap_len(uint8_t type);
/* Writes the header of a tenant; returns its length. */
uint16_t shim_encap_build(uint8_t type, uint32_t tenant, uint8_t *out);
/* What a guest built is exactly what shim_encap_build() would have. */
bool shim_encap_is_ours(uint8_t type, uint32_t tenant, const uint8_t *hdr);

enum shim_encap_verdict {
	SHIM_ENCAP_OK,
	SHIM_ENCAP_BAD,		/* not this encapsulation */
	SHIM_ENCAP_OTHER_TENANT,
};
/* What came from a network; fields that RFC 7348 has ignored are ignored. */
enum shim_encap_verdict shim_encap_check(uint8_t type, uint32_t tenant,
					 const uint8_t *hdr, uint16_t len);

/* ---- metadata ---- */

struct shim_meta {
	uint8_t flags;	  /* VNET_TRAIN_F_NEEDS_CSUM or 0 */
	uint8_t gso_type; /* VNET_GSO_* */
	uint16_t gso_size, hdr_len, csum_start, csum_offset;
};

/* Whether it makes sense for a frame of this length. */
bool shim_meta_sane(const struct shim_meta *m, uint32_t frame_len);
void shim_meta_from_train(struct shim_meta *m, const struct vnet_train_hdr *h);
void shim_meta_from_virtio(struct shim_meta *m,
			   const struct virtio_net_hdr_v1 *h);
void shim_meta_to_virtio(const struct shim_meta *m, uint16_t num_buffers,
			 struct virtio_net_hdr_v1 *h);
void shim_meta_to_wire(const struct shim_meta *m, uint8_t encap_type,
		       uint16_t encap_len, struct vnet_wire_meta *w);
/* false: unknown version or flags, or reserved bits set. */
bool shim_meta_from_wire(struct shim_meta *m, const struct vnet_wire_meta *w);

#endif /* SHIM_ENCAP_H */
