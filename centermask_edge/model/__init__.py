"""The networks in torch: backbones, FPN, FCOS head, mask head, mask-IoU head and their whole."""
