"""What operators watch: health, metrics, the request log."""
