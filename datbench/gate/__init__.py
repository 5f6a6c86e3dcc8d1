"""What a baseline holds, computed again, and compared with it."""
