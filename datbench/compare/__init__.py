"""Whether B is as fast as A: fresh processes in ABBA order, a rank test, a threshold."""
