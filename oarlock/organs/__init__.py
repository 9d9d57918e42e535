"""The OARs: their catalogue, the names they go by, and what is usual of them."""
