"""Where deformable attention samples, and what it makes of it."""
