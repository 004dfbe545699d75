"""The view of the facts of access control that a process decides by."""

from registry.access.rights import AccessView
from registry.catalog.access import CommittedAccess
from registry.catalog.database import Reads


def access_view(database: Reads) -> AccessView:
    """Return the view of what is committed in a catalog."""
    return CommittedAccess(database)
