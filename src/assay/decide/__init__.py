"""From quantiles to a plan: one decision a file. Sees quantiles, never models."""
