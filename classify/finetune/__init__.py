"""Fine-tuning: the network trained further from where the probe ended, with the probe's splits, metrics and bundle."""
