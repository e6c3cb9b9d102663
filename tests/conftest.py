import os

# The networks here are so small that torch's threads cost ten times what they save where other processes are busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
