"""Documents of the HTTP contract, as pydantic models."""
