"""Looking before training: findings and structure. One file a kind of finding."""
