// SPDX-License-Identifier: GPL-2.0-only
/*
 * Building, checking and parsing of what stands in front of a frame.
 *
 * Who is trusted: the host is the provider of this VM and could do worse than
 * send a bad header, but its bytes also come from links, through a shim that
 * may be broken or newer. Nothing here may make the driver read or write
 * outside the buffers it posted: every length is bounded by the caller against
 * the bytes it has, every enumeration against those known.
 */
#include "encap.h"
#include "vnet_vtoe.h"

int vnpv_block_parse(const struct vnet_vendor_block *wire,
		     struct vnpv_block *block, const char **why)
{
	unsigned int i;

	if (le32_to_cpu(wire->magic) != VNET_VENDOR_MAGIC) {
		*why = "there is no vendor block";
		return -ENODEV;
	}
	if (le16_to_cpu(wire->version) != VNET_VENDOR_VERSION) {
		*why = "the vendor block has a version this driver does not know";
		return -EPROTO;
	}
	if (le16_to_cpu(wire->size) < sizeof(*wire)) {
		*why = "the vendor block is too short for its version";
		return -EPROTO;
	}
	if (wire->features) {
		*why = "the vendor block requires features this driver does not know";
		return -EPROTO;
	}

	for (i = 0; i < sizeof(wire->reserved2); i++)
		if (wire->reserved2[i])
			break;
	if (wire->reserved0 || wire->reserved1 || i < sizeof(wire->reserved2)) {
		*why = "a reserved field of the vendor block is not zero";
		return -EPROTO;
	}

	memset(block, 0, sizeof(*block));
	block->generation = le32_to_cpu(wire->generation);
	block->tenant = le32_to_cpu(wire->tenant);
	block->encap_len = le16_to_cpu(wire->encap_len);
	block->encap_len_max = le16_to_cpu(wire->encap_len_max);
	block->encap_type = wire->encap_type;
	block->train_form = wire->train_form;
	block->vtoe_state = wire->vtoe_state;
	block->vtoe_first_queue = le16_to_cpu(wire->vtoe_first_queue);
	block->vtoe_epoch = le32_to_cpu(wire->vtoe_epoch);
	for (i = 0; i < VNET_RWQ_CLASSES; i++)
		block->rwq_buf_size[i] = le32_to_cpu(wire->rwq_buf_size[i]);

	if (block->tenant >> 24) {
		*why = "the tenant does not fit 24 bits";
		return -EPROTO;
	}
	if (block->encap_len_max > VNET_ENCAP_LEN_MAX ||
	    block->encap_len > block->encap_len_max) {
		*why = "encap_len or encap_len_max is out of bounds";
		return -EPROTO;
	}
	switch (block->encap_type) {
	case VNET_ENCAP_VNET_UDP:
		i = 0;
		break;
	case VNET_ENCAP_VXLAN:
		i = VNET_VXLAN_LEN;
		break;
	default:
		*why = "the encapsulation type is unknown";
		return -EPROTO;
	}
	if (block->encap_len != i) {
		*why = "encap_len is not that of the encapsulation type";
		return -EPROTO;
	}
	if (block->train_form != VNET_TRAIN_WHOLE &&
	    block->train_form != VNET_TRAIN_SEGMENTED) {
		*why = "the train form is unknown";
		return -EPROTO;
	}
	if (block->vtoe_state > VNET_VTOE_UP) {
		*why = "the VTOE state is unknown";
		return -EPROTO;
	}
	/* An offload we cannot use does not cost the VM its Ethernet. */
	if (le16_to_cpu(wire->vtoe_swq_count) != 1 ||
	    le16_to_cpu(wire->vtoe_rwq_count) != VNET_RWQ_CLASSES ||
	    !block->rwq_buf_size[VNET_RWQ_SMALL] ||
	    block->rwq_buf_size[VNET_RWQ_SMALL] > block->rwq_buf_size[VNET_RWQ_LARGE] ||
	    block->rwq_buf_size[VNET_RWQ_LARGE] > VTOE_MSG_LEN_MAX)
		block->vtoe_state = VNET_VTOE_ABSENT;
	return 0;
}

void vnpv_encap_build(const struct vnpv_block *block, void *to)
{
	struct vnet_vxlan_hdr vxlan;

	if (block->encap_type != VNET_ENCAP_VXLAN)
		return;
	vxlan.flags = cpu_to_be32(VNET_VXLAN_FLAG_VNI);
	vxlan.vni = cpu_to_be32(block->tenant << 8);
	memcpy(to, &vxlan, sizeof(vxlan)); /* to has any alignment */
}

enum vnpv_rx_drop vnpv_encap_verify(const void *from, u16 len, u32 tenant)
{
	struct vnet_vxlan_hdr vxlan;

	switch (len) {
	case 0: /* VNET-UDP: the link itself is the tenant's */
		return VNPV_RX_OK;
	case VNET_VXLAN_LEN:
		memcpy(&vxlan, from, sizeof(vxlan));
		/* RFC 7348 section 5: reserved bits are ignored on receipt. */
		if (!(vxlan.flags & cpu_to_be32(VNET_VXLAN_FLAG_VNI)))
			return VNPV_RX_DROP_ENCAP;
		if (be32_to_cpu(vxlan.vni) >> 8 != tenant)
			return VNPV_RX_DROP_TENANT;
		return VNPV_RX_OK;
	default:
		return VNPV_RX_DROP_ENCAP;
	}
}

void vnpv_train_build(const struct vnpv_train *train,
		      struct vnet_train_hdr *wire)
{
	wire->version = VNET_TRAIN_VERSION;
	wire->form = train->form;
	wire->flags = train->flags;
	wire->gso_type = train->gso_type;
	wire->encap_len = cpu_to_le16(train->encap_len);
	wire->gso_size = cpu_to_le16(train->gso_size);
	wire->hdr_len = cpu_to_le16(train->hdr_len);
	wire->csum_start = cpu_to_le16(train->csum_start);
	wire->csum_offset = cpu_to_le16(train->csum_offset);
	wire->num_buffers = cpu_to_le16(train->num_buffers);
	wire->generation = cpu_to_le32(train->generation);
	wire->link = cpu_to_le32(train->link);
	wire->train_len = cpu_to_le32(train->train_len);
	wire->seg_size = cpu_to_le16(train->seg_size);
	wire->reserved = 0;
}

/* Fields that the whole form gives a meaning, and those that it may not use. */
static enum vnpv_rx_drop whole_check(const struct vnpv_train *train)
{
	if (train->seg_size)
		return VNPV_RX_DROP_FORM;
	if (train->train_len < (u32)train->encap_len + VNPV_ETH_HLEN ||
	    train->train_len > (u32)train->encap_len + VNET_FRAME_MAX)
		return VNPV_RX_DROP_LENGTH;
	if (train->flags & ~(VNET_TRAIN_F_NEEDS_CSUM | VNET_TRAIN_F_DATA_VALID))
		return VNPV_RX_DROP_METADATA;

	switch (train->gso_type & ~VNET_GSO_ECN) {
	case VNET_GSO_NONE:
		if (train->gso_type)
			return VNPV_RX_DROP_METADATA;
		break;
	case VNET_GSO_TCPV4:
	case VNET_GSO_TCPV6:
		if (!train->gso_size ||
		    !(train->flags & VNET_TRAIN_F_NEEDS_CSUM))
			return VNPV_RX_DROP_METADATA;
		break;
	default:
		return VNPV_RX_DROP_METADATA;
	}
	/* Behind the Ethernet header, and the checksum inside the frame. */
	if (train->flags & VNET_TRAIN_F_NEEDS_CSUM &&
	    (train->csum_start < VNPV_ETH_HLEN ||
	     (u32)train->encap_len + train->csum_start + train->csum_offset +
			     2 >
		     train->train_len))
		return VNPV_RX_DROP_METADATA;
	return VNPV_RX_OK;
}

static enum vnpv_rx_drop segmented_check(const struct vnpv_train *train)
{
	if (train->flags & ~VNET_TRAIN_F_DATA_VALID || train->gso_type)
		return VNPV_RX_DROP_METADATA;
	if (train->seg_size < (u32)train->encap_len + VNPV_ETH_HLEN ||
	    train->train_len < (u32)train->encap_len + VNPV_ETH_HLEN ||
	    train->train_len > VNPV_TRAIN_LEN_MAX)
		return VNPV_RX_DROP_LENGTH;
	return VNPV_RX_OK;
}

enum vnpv_rx_drop vnpv_train_parse(const struct vnet_train_hdr *wire,
				   struct vnpv_train *train)
{
	if (wire->version != VNET_TRAIN_VERSION || wire->reserved)
		return VNPV_RX_DROP_VERSION;

	train->form = wire->form;
	train->flags = wire->flags;
	train->gso_type = wire->gso_type;
	train->encap_len = le16_to_cpu(wire->encap_len);
	train->gso_size = le16_to_cpu(wire->gso_size);
	train->hdr_len = le16_to_cpu(wire->hdr_len);
	train->csum_start = le16_to_cpu(wire->csum_start);
	train->csum_offset = le16_to_cpu(wire->csum_offset);
	train->num_buffers = le16_to_cpu(wire->num_buffers);
	train->generation = le32_to_cpu(wire->generation);
	train->link = le32_to_cpu(wire->link);
	train->train_len = le32_to_cpu(wire->train_len);
	train->seg_size = le16_to_cpu(wire->seg_size);

	switch (train->form) {
	case VNET_TRAIN_WHOLE:
		return whole_check(train);
	case VNET_TRAIN_SEGMENTED:
		return segmented_check(train);
	default:
		return VNPV_RX_DROP_FORM;
	}
}
