"""Bridges to other people's systems: MLflow, OpenTelemetry."""
