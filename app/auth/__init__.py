"""A bearer string comes in, a Caller goes out."""
