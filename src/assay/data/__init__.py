"""Read, describe and split data. Knows formats; knows no models."""
