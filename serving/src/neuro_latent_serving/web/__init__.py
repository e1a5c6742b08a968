"""What the HTTP servers of ``serve`` and ``gateway`` share: ports, connections, who may ask."""
