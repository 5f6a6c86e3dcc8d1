"""Where a report's tables are compared: here, or in a process of their own meanwhile."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..cells import Comparison
    from ..models.resolve import Spec
    from ..paper.tables import TableData
    from .report_worker import TablesElsewhere

SEVERAL = 3
"""Tables above which a process of their own is worth its start."""


def far(specs: Sequence[Spec], tables: Sequence[TableData]) -> list[TableData]:
    """What another process compares meanwhile, where there are enough cores and tables.

    Those of datbench's own models stay here: timm takes seconds to import, which one process does.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = [table for table in tables if _foreign(table)]
    return found if len(found) > SEVERAL and specs and (cores or 1) > 1 else []


def _foreign(table: TableData) -> bool:
    return any(":" in build.model for row in table.rows for build in row.builds)


def elsewhere(tables: Sequence[TableData]) -> AbstractContextManager[TablesElsewhere | None]:
    """A process at these tables; none where there are none."""
    if not tables:
        return nullcontext()
    from .report_worker import TablesElsewhere

    return TablesElsewhere([table.table for table in tables])


def compared(tables: Sequence[TableData]) -> dict[str, Comparison]:
    """The papers' tables, compared, by name; models that they share are counted once."""
    if not tables:
        return {}
    from ..paper.library import paper_tables
    from ..paper.verdicts import compare
    from ..paper.workshop import Workshop
    from .progress import progress

    workshop = Workshop()
    found = {}
    for table in progress(tables, lambda table: f"table {table.table}"):
        others = [other for other in paper_tables() if other is not table]
        found[table.table] = compare(table, others, workshop)
    return found
