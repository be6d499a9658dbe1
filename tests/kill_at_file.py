"""The start of a program that kills itself soon after it has put the given number of files into their places.

Follows files instead of the clock, so that the kill falls on the same work on a busy machine.
"""

KILL_AT_FILE = """
import os, signal, threading, time
from pathlib import Path
files, replace = 0, Path.replace
def kill():
    time.sleep(delay)
    os.kill(os.getpid(), signal.SIGKILL)
def count_and_replace(self, target):
    global files
    files += 1
    if files == kill_after:
        threading.Thread(target=kill, daemon=True).start()
    return replace(self, target)
Path.replace = count_and_replace
"""
