"""Hand over the winner: the bundle (one file that holds data only), and what serves it."""
