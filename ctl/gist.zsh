#compdef gistctl gistd gist-adapter gist-dbus gist-eval gist-http gist-train
# Completion of the tools for zsh. What can stand somewhere is known to the completions for bash, which ctl/complete asks.

local helper line
local -a words_so_far lines candidates

words_so_far=("${(@Q)words[1,CURRENT]}")
helper=${commands[${words_so_far[1]:t}]:A:h}/../lib/gistd/complete
if [[ ! -x $helper ]]; then
    _files
    return
fi
lines=("${(@f)$("$helper" "${words_so_far[@]}" 2>/dev/null)}")
for line in $lines; do
    # _describe takes the first colon that is not escaped for the end of the candidate.
    [[ $line = /files/ ]] || candidates+=("${${line%%$'\t'*}//:/\\:}${${(M)line%$'\t'*}/$'\t'/:}")
done
(( ! $#candidates )) || _describe -t values 'value' candidates
(( ! ${lines[(I)/files/]} )) || _files
