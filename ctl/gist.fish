# Completion of the tools for fish, installed under the name of each. What can stand somewhere is known to the completions
# for bash, which ctl/complete asks; its lines are fish's own: a candidate, a tab, what it is.

function __gist_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program (command -s $words[1]); or return
    set -l helper (dirname (realpath $program))/../lib/gistd/complete
    test -x $helper; or begin
        __fish_complete_path "$current"
        return
    end
    for line in ($helper $words "$current" 2>/dev/null)
        if test "$line" = /files/
            __fish_complete_path "$current"
        else
            echo $line
        end
    end
end

for program in gistctl gistd gist-adapter gist-dbus gist-eval gist-http gist-train
    complete -c $program -f -a '(__gist_complete)'
end
