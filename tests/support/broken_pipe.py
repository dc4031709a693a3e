"""broken_pipe.py COMMAND... - runs it with standard output a pipe that nobody reads, SIGPIPE ignored.

Ends with its exit code.
"""
import os
import signal
import subprocess
import sys

signal.signal(signal.SIGPIPE, signal.SIG_IGN)
read_end, write_end = os.pipe()
os.close(read_end)
sys.exit(subprocess.run(sys.argv[1:], stdout=write_end, restore_signals=False).returncode)
