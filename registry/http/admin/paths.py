"""Paths of the administrative API that begin alike."""

OWN = "/_concord/"
ACCESS = OWN + "access/"
"""The paths by which accounts, groups and grants are changed and listed."""
TAG_LOCATIONS = "/_concord/replication/"
TAG_LOCATIONS_TEMPLATE = "/_concord/replication/<name>/<tag>"
