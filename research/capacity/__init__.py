"""How many requests a machine serves: a simulation from measured service times, checked against real load."""
