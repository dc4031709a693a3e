# Completion of gist-http for bash. Options are read from --help, so this file names none.

_gist_http()
{
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} help arg

    COMPREPLY=()
    help=$(gist-http --help 2>/dev/null)
    arg=$(sed -n "s/^ *$prev \([^ ]*\).*/\1/p" <<<"$help")
    case $cur,$arg in
    -*)
        mapfile -t COMPREPLY < <(compgen -W "$(grep -o -e '^ *--[a-z][a-z-]*' <<<"$help")" -- "$cur")
        ;;
    *,*'|'*)
        mapfile -t COMPREPLY < <(compgen -W "${arg//|/ }" -- "$cur")
        ;;
    *)
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        ;;
    esac
}

complete -o filenames -F _gist_http gist-http
