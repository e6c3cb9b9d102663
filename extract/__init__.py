"""Images -> features: run a frozen ConvNet over a data set once and keep what its layers said."""
