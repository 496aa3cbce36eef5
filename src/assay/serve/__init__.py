"""The service: bundles answered over HTTP, and the page."""
