"""Paths of the administrative API that hold a name."""

TAG_LOCATIONS = "/_concord/replication/"
TAG_LOCATIONS_TEMPLATE = "/_concord/replication/<name>/<tag>"
