"""Run a server of gunicorn in one process, as its own only worker: `single.py MODULE ARGUMENTS...`.

What follows a process from outside, as valgrind does, can then be told by one process id when to begin.
"""

from gevent import monkey

monkey.patch_all()

import os
import runpy
import sys

os.fork = lambda: 0  # so it goes on as the worker
os.getppid = os.getpid  # and its parent lives as long as it does itself
sys.argv = sys.argv[1:]
sys.path[0] = ""
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
