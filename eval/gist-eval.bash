# Completion of gist-eval for bash. Commands, options and compressors are read from --help and gistctl's, so this
# file names none.

_gist_eval()
{
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}

    COMPREPLY=()
    case $prev in
    --out | --text | --config | --socket | --html | --plots)
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
        ;;
    --compressors)
        mapfile -t COMPREPLY < <(compgen -W \
            "$(gistctl ask --help 2>/dev/null | sed -n 's/.*--compressor NAME *[^:]*: \(.*\) (.*/\1/p' | tr -d ,)" -- "$cur")
        return
        ;;
    esac
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W \
            "$(gist-eval --help 2>/dev/null | sed -n 's/^  \([a-z][a-z-]*\)  .*/\1/p') --help --version" -- "$cur")
        return
    fi
    case $cur in
    -*)
        mapfile -t COMPREPLY < <(compgen -W \
            "$(gist-eval "$command" --help 2>/dev/null | grep -o -e '--[a-z][a-z-]*')" -- "$cur")
        ;;
    *)
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        ;;
    esac
}

complete -o filenames -F _gist_eval gist-eval
