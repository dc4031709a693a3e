# Completion of gistctl for bash. Commands, options, compressors and modes are read from --help, so this file names none.

# All, or with the name of a command that has commands, such as `cache`, those: other commands' help has lines of
# options and none of names.
_gistctl_commands()
{
    gistctl ${1:+"$1"} --help 2>/dev/null | sed -n 's/^  \([a-z][a-z-]*\)  .*/\1/p'
}

_gistctl_compressors()
{
    gistctl ask --help 2>/dev/null | sed -n 's/.*--compressor NAME *[^:]*: \(.*\) (.*/\1/p' | tr -d ,
}

_gistctl_modes()
{
    gistctl ask --help 2>/dev/null | sed -n 's/.*--memory MODE *//p' | grep -o '[a-z]*:' | tr -d :
}

_gistctl_hydrate()
{
    gistctl ask --help 2>/dev/null | sed -n 's/.*--hydrate \([a-z|]*\)|N .*/\1/p' | tr '|' ' '
}

# Names of documents (doc) or conversations (session), a line each; those with a quote or a backslash are left out.
# A daemon that is still loading would keep the Tab key waiting.
_gistctl_names()
{
    timeout 1 gistctl "$1" ls --json 2>/dev/null | grep -o '"name": "[^"\\]*"[,}]' | sed 's/^"name": "\(.*\)".$/\1/'
}

# Models of one of the states, and of the list alone when that is said: a line each.
_gistctl_models()
{
    timeout 5 gistctl models --json 2>/dev/null | grep -o '{[^}]*}' | grep -E "\"state\": \"($1)\"" |
        grep -F -e "${2:+\"from\": \"$2\"}" | sed 's/^{"name": "\([^"\\]*\)".*/\1/'
}

_gistctl()
{
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command= sub= word subs= colon=

    # To bash a colon is a word of its own; in "llama3.2:1b" it is not.
    if [ "$prev" = : ] && [ "$COMP_CWORD" -ge 3 ]; then
        colon=${COMP_WORDS[COMP_CWORD - 2]}: prev=${COMP_WORDS[COMP_CWORD - 3]}
        cur=$colon$cur
    elif [ "$cur" = : ] && [ "$COMP_CWORD" -ge 2 ]; then
        colon=$prev: prev=${COMP_WORDS[COMP_CWORD - 2]}
        cur=$colon
    fi
    _gistctl_words
    COMPREPLY=("${COMPREPLY[@]#"$colon"}")
}

_gistctl_words()
{
    COMPREPLY=()
    case $prev in
    -f | --file | -S | --socket | --grammar | --schema)
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
        ;;
    -m | --model)
        mapfile -t COMPREPLY < <(IFS=$'\n'; compgen -W "$(_gistctl_models 'ready|to be fetched')" -- "$cur"; compgen -f -- "$cur")
        return
        ;;
    --role)
        mapfile -t COMPREPLY < <(compgen -W 'system user assistant' -- "$cur")
        return
        ;;
    --memory)
        mapfile -t COMPREPLY < <(compgen -W "$(_gistctl_modes)" -- "$cur")
        return
        ;;
    --hydrate)
        mapfile -t COMPREPLY < <(compgen -W "$(_gistctl_hydrate)" -- "$cur")
        return
        ;;
    --compressor)
        mapfile -t COMPREPLY < <(compgen -W "$(_gistctl_compressors)" -- "$cur")
        return
        ;;
    -d | --doc)
        mapfile -t COMPREPLY < <(IFS=$'\n'; compgen -W "$(_gistctl_names doc)" -- "$cur")
        return
        ;;
    --resume)
        mapfile -t COMPREPLY < <(IFS=$'\n'; compgen -W "$(_gistctl_names session)" -- "$cur")
        return
        ;;
    esac
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        if [ -n "$command" ]; then
            if [ "${subs#*" $word "}" != "$subs" ]; then
                sub=$word
                break
            fi
        elif gistctl --help 2>/dev/null | grep -q "^  $word  "; then
            command=$word
            subs=" $(_gistctl_commands "$command" | tr '\n' ' ') "
        fi
    done
    case $cur in
    -*)
        mapfile -t COMPREPLY < <(compgen -W \
            "$(gistctl ${command:+"$command"} ${sub:+"$sub"} --help 2>/dev/null | grep -o -e '--[a-z][a-z-]*')" -- "$cur")
        ;;
    *)
        if [ -z "$command" ]; then
            mapfile -t COMPREPLY < <(compgen -W "$(_gistctl_commands)" -- "$cur")
        elif [ -z "$sub" ] && [ -n "${subs// /}" ]; then
            mapfile -t COMPREPLY < <(compgen -W "$subs" -- "$cur")
        elif [ "$command" = pull ]; then
            mapfile -t COMPREPLY < <(compgen -W "$(_gistctl_models 'ready|to be fetched' list)" -- "$cur")
        elif [ "$command" = use ]; then
            mapfile -t COMPREPLY < <(IFS=$'\n'; compgen -W "$(_gistctl_models ready)" -- "$cur"; compgen -f -- "$cur")
        elif [ "$command" = cancel ]; then
            mapfile -t COMPREPLY < <(compgen -W "$(timeout 1 gistctl sessions --json 2>/dev/null |
                grep -o '"id": [0-9]*' | tr -dc '0-9\n')" -- "$cur")
        elif [ "$sub" = rm ]; then
            mapfile -t COMPREPLY < <(IFS=$'\n'; compgen -W "$(_gistctl_names "$command")" -- "$cur")
        else
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        fi
        ;;
    esac
}

complete -o filenames -F _gistctl gistctl
