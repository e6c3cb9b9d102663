"""Features -> answers: heads on cached features, their evidence, and what a run deploys."""
