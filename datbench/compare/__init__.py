"""Whether B is as fast as A: fresh processes in ABBA order, a rank test, a threshold.

``datbench.compare(a, b)`` compares two models, as `datbench.api.compare` says.
"""

from ..called import called

called(__name__)
