"""Lists of tensors as vectors: their memory, and arithmetic over them."""
