// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Building and checking headers. Pure functions over copies: who calls has
 * fetched the bytes from guest memory or the network once, and what is checked
 * here is what is used.
 *
 * Threat model: a guest that names another tenant's VNI would speak in that
 * tenant's network, so what it built must equal, byte for byte, what we would
 * have built. Metadata is acted upon by the kernel of the guest at the other
 * end (checksum offsets, segment sizes): an offset outside the frame must not
 * reach it, whether it comes from our guest or from the network.
 */
#include <endian.h>
#include <string.h>

#include "encap.h"

_Static_assert(VNET_TRAIN_F_NEEDS_CSUM == VIRTIO_NET_HDR_F_NEEDS_CSUM &&
		       VNET_GSO_TCPV4 == VIRTIO_NET_HDR_GSO_TCPV4 &&
		       VNET_GSO_TCPV6 == VIRTIO_NET_HDR_GSO_TCPV6 &&
		       VNET_GSO_ECN == VIRTIO_NET_HDR_GSO_ECN,
	       "the encodings share their numbers");

uint16_t shim_encap_len(uint8_t type)
{
	return type == VNET_ENCAP_VXLAN ? VNET_VXLAN_LEN : 0;
}

uint16_t shim_encap_build(uint8_t type, uint32_t tenant, uint8_t *out)
{
	struct vnet_vxlan_hdr h = {
		.flags = htobe32(VNET_VXLAN_FLAG_VNI),
		.vni = htobe32(tenant << 8),
	};

	if (type != VNET_ENCAP_VXLAN)
		return 0;
	memcpy(out, &h, sizeof(h));
	return sizeof(h);
}

bool shim_encap_is_ours(uint8_t type, uint32_t tenant, const uint8_t *hdr)
{
	uint8_t want[SHIM_ENCAP_MAX] = { 0 };
	const uint16_t len = shim_encap_build(type, tenant, want);

	return !memcmp(hdr, want, len);
}

enum shim_encap_verdict shim_encap_check(uint8_t type, uint32_t tenant,
					 const uint8_t *hdr, uint16_t len)
{
	struct vnet_vxlan_hdr h;

	if (type > VNET_ENCAP_VXLAN || len != shim_encap_len(type))
		return SHIM_ENCAP_BAD;
	if (type == VNET_ENCAP_VNET_UDP)
		return SHIM_ENCAP_OK;
	memcpy(&h, hdr, sizeof(h));
	if (!(be32toh(h.flags) & VNET_VXLAN_FLAG_VNI))
		return SHIM_ENCAP_BAD;
	return be32toh(h.vni) >> 8 == tenant ? SHIM_ENCAP_OK :
					       SHIM_ENCAP_OTHER_TENANT;
}

bool shim_meta_sane(const struct shim_meta *m, uint32_t frame_len)
{
	if (frame_len < SHIM_ETH_LEN || frame_len > VNET_FRAME_MAX ||
	    m->hdr_len > frame_len || (m->flags & ~VNET_TRAIN_F_NEEDS_CSUM))
		return false;
	if ((m->flags & VNET_TRAIN_F_NEEDS_CSUM) &&
	    (m->csum_start < SHIM_ETH_LEN ||
	     (uint32_t)m->csum_start + m->csum_offset + 2 > frame_len))
		return false;
	switch (m->gso_type & ~VNET_GSO_ECN) {
	case VNET_GSO_NONE:
		return m->gso_type == VNET_GSO_NONE;
	case VNET_GSO_TCPV4:
	case VNET_GSO_TCPV6:
		/* 0xffff is GSO_BY_FRAGS inside Linux */
		return m->gso_size && m->gso_size != 0xffff &&
		       (m->flags & VNET_TRAIN_F_NEEDS_CSUM);
	}
	return false;
}

void shim_meta_from_train(struct shim_meta *m, const struct vnet_train_hdr *h)
{
	*m = (struct shim_meta){
		/* that a checksum was valid is no promise to the other end */
		.flags = h->flags & ~VNET_TRAIN_F_DATA_VALID,
		.gso_type = h->gso_type,
		.gso_size = le16toh(h->gso_size),
		.hdr_len = le16toh(h->hdr_len),
		.csum_start = le16toh(h->csum_start),
		.csum_offset = le16toh(h->csum_offset),
	};
}

void shim_meta_from_virtio(struct shim_meta *m,
			   const struct virtio_net_hdr_v1 *h)
{
	*m = (struct shim_meta){
		.flags = h->flags & ~VIRTIO_NET_HDR_F_DATA_VALID,
		.gso_type = h->gso_type,
		.gso_size = le16toh(h->gso_size),
		.hdr_len = le16toh(h->hdr_len),
		.csum_start = le16toh(h->csum_start),
		.csum_offset = le16toh(h->csum_offset),
	};
}

void shim_meta_to_virtio(const struct shim_meta *m, uint16_t num_buffers,
			 struct virtio_net_hdr_v1 *h)
{
	*h = (struct virtio_net_hdr_v1){
		.flags = m->flags,
		.gso_type = m->gso_type,
		.hdr_len = htole16(m->hdr_len),
		.gso_size = htole16(m->gso_size),
		.csum_start = htole16(m->csum_start),
		.csum_offset = htole16(m->csum_offset),
		.num_buffers = htole16(num_buffers),
	};
}

void shim_meta_to_wire(const struct shim_meta *m, uint8_t encap_type,
		       uint16_t encap_len, struct vnet_wire_meta *w)
{
	*w = (struct vnet_wire_meta){
		.version = VNET_WIRE_META_VERSION,
		.flags = m->flags,
		.gso_type = m->gso_type,
		.encap_type = encap_type,
		.encap_len = htobe16(encap_len),
		.gso_size = htobe16(m->gso_size),
		.hdr_len = htobe16(m->hdr_len),
		.csum_start = htobe16(m->csum_start),
		.csum_offset = htobe16(m->csum_offset),
	};
}

bool shim_meta_from_wire(struct shim_meta *m, const struct vnet_wire_meta *w)
{
	if (w->version != VNET_WIRE_META_VERSION || w->reserved)
		return false;
	*m = (struct shim_meta){
		.flags = w->flags,
		.gso_type = w->gso_type,
		.gso_size = be16toh(w->gso_size),
		.hdr_len = be16toh(w->hdr_len),
		.csum_start = be16toh(w->csum_start),
		.csum_offset = be16toh(w->csum_offset),
	};
	return true;
}
