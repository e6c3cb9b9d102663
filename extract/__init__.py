"""Images -> features: run a frozen ConvNet over a data set once and keep what its layers said."""

import os

# Unless told otherwise before torch is imported, OpenMP's threads wait for each other by spinning. On cores that are
# shared with anything else, our own decoding threads included, that wastes most of them: passive waiting turned 58
# images/s into 350 on two busy cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
