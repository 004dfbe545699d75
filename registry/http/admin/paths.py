"""Paths of the administrative API that several modules need."""

TAG_LOCATIONS = "/_concord/replication/"
TAG_LOCATIONS_TEMPLATE = "/_concord/replication/<name>/<tag>"
ACCESS = "/_concord/access/"
ACCESS_SELF = ACCESS + "self"
