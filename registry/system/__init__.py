"""The real things behind the four seams (`registry.seams`)."""
