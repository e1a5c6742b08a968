"""What happens to a server and its users when things break: ``make chaos``. Not a part of ``make test``."""
