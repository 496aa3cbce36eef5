"""The page of the service, mounted on it: what answers, trying it, contests, labels, replies, the watch and the log."""

from assay.serve.page.mounted import application

__all__ = ["application"]
