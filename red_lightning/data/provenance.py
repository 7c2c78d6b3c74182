"""Record the origin of hub data, for results.json."""

from typing import Any

from red_lightning.data.hub_rows import hub_commit
from red_lightning.errors import UsageError


def hub_provenance(path: str, revision: str | None) -> dict[str, Any]:
    """Path, revision and resolved commit of a data set.

    Args:
        path: Hub id or folder.
        revision: Branch, tag or commit on the hub.
    """
    try:
        commit = hub_commit(path, revision)
    except UsageError:  # the rows came from the cache, so the hub need not answer
        commit = None
    return {"path": path, "revision": revision, "commit": commit}
