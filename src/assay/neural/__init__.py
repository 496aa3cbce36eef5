"""What networks share: frozen sentence encoders, the head on top of them, and how their weights are checked and kept."""
