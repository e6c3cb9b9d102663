"""How much is lost by letting `fit` choose the strategy, or by rules of thumb."""
