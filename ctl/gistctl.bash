# Completion of gistctl for bash. Commands, options and compressors are read from --help, so this file names none.

_gistctl_commands()
{
    gistctl --help 2>/dev/null | sed -n 's/^  \([a-z][a-z-]*\)  .*/\1/p'
}

_gistctl_compressors()
{
    gistctl ask --help 2>/dev/null | sed -n 's/.*--compressor NAME *[^:]*: \(.*\) (.*/\1/p' | tr -d ,
}

_gistctl()
{
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command= word

    COMPREPLY=()
    case $prev in
    -f | --file | -S | --socket)
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
        ;;
    --compressor)
        mapfile -t COMPREPLY < <(compgen -W "$(_gistctl_compressors)" -- "$cur")
        return
        ;;
    esac
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        if gistctl --help 2>/dev/null | grep -q "^  $word  "; then
            command=$word
            break
        fi
    done
    case $cur in
    -*)
        mapfile -t COMPREPLY < <(compgen -W \
            "$(gistctl ${command:+"$command"} --help 2>/dev/null | grep -o -e '--[a-z][a-z-]*')" -- "$cur")
        ;;
    *)
        if [ -z "$command" ]; then
            mapfile -t COMPREPLY < <(compgen -W "$(_gistctl_commands)" -- "$cur")
        else
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        fi
        ;;
    esac
}

complete -o filenames -F _gistctl gistctl
