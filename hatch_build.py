"""README as an index page shows it: its links and pictures lie in the repository."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Readme(MetadataHookInterface):
    """Gives the package its long description."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add README with absolute links."""
        home = metadata["urls"]["Repository"]
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        for before, view in ((r"!\[[^]]*\]\(", "raw"), (r"\]\(", "blob")):
            text = re.sub(rf"({before})(?![a-z]+:|#)", rf"\1{home}/{view}/main/", text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
