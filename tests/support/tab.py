#!/usr/bin/env python3
"""tests/support/tab.py FOLDER FUNCTIONS LINE WANT... - types LINE and the Tab key on a zsh with nothing but the completions
of FUNCTIONS, whose programs are those of FOLDER, and exits with 1 unless all that is WANTed is offered or filled in."""
import os
import sys
import tempfile

from terminal import Terminal

folder, functions, line, *wanted = sys.argv[1:]
with tempfile.TemporaryDirectory() as home:
    # -f: nobody's settings. All that Tab gives is listed at once, however much it is.
    t = Terminal("zsh", "-f", "-i", env={"HOME": home, "ZDOTDIR": home, "PATH": f"{folder}:{os.environ['PATH']}", "TERM": "dumb",
                                         "PS1": "ready> ", "LC_ALL": "C.UTF-8"}, rows=200, columns=200)
    t.expect("ready> ")
    t.type(f"fpath=({functions} $fpath); autoload -Uz compinit && compinit -u -d {home}/dump; LISTMAX=1000; setopt AUTO_LIST; "
           "unsetopt LIST_AMBIGUOUS; echo he''re\n")
    t.expect("here")
    t.expect("ready> ")
    t.type(line + "\t")
    for w in wanted:
        t.expect(w)
    t.type("\x15exit\n")
    t.exit_code()
