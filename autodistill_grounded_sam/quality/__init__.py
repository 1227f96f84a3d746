"""How good labels are: the probability that each is right, and precision and missed objects with intervals."""
