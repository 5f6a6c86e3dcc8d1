"""The base of datbench's dispatch modes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:

    class _Mode:
        """TorchDispatchMode as a type checker may see it: torch leaves it untyped."""

        def __enter__(self) -> Any: ...
        def __exit__(self, *exc_info: object) -> None: ...

else:
    _Mode = TorchDispatchMode


class EagerMode(_Mode):
    """A dispatch mode that is never compiled, and says so.

    Torch otherwise wraps a mode's handler in `torch._dynamo.disable`, whose first call imports the
    whole compiler: about as long as `import torch` itself. Compiled modules run eagerly under
    these modes in any case (`datbench.measure.count`).
    """

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
