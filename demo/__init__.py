"""The whole stack on embedded servers: what `make demo` runs."""
