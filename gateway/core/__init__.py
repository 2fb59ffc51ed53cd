"""What a gateway decides: no sockets, no clocks."""
