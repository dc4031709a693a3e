# Completion for bash of the programs whose --help is a list of options, made from a table of them. Options, what they
# take and commands are read from there, so this file names none but the programs.

_gist_options()
{
    local program=${COMP_WORDS[0]} cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} help takes commands

    COMPREPLY=()
    help=$("$program" --help 2>/dev/null)
    # What the option before takes stands one space behind its name, which may stand behind the short one.
    takes=$(awk -v option="$prev" '
        match($0, /^ +(-[A-Za-z], )?--[a-z][a-z0-9-]*( [^ ]+)?/) {
            $0 = substr($0, RSTART, RLENGTH)
            for (i = 1; i <= 2 && i < NF; i++)
                if ($i == option || $i == option ",") {
                    if ($NF !~ /^--/)
                        print $NF
                    exit
                }
        }' <<<"$help")
    case $takes in
    *FILE* | *PATH* | *FOLDER*)
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
        ;;
    *'|'*)
        mapfile -t COMPREPLY < <(compgen -W "$(tr '|' '\n' <<<"$takes" | grep -v '[A-Z]')" -- "$cur")
        return
        ;;
    ?*)
        return # a number, a size, a name: nobody knows
        ;;
    esac
    commands=$(sed -n "s/^\([Uu]sage:\)\{0,1\} *${program##*/} \([a-z][a-z]*\) .*/\2/p" <<<"$help")
    if [[ $cur = -* ]] || [ -z "$commands" ]; then
        # Options of commands stand where their use is shown, and perhaps nowhere else.
        mapfile -t COMPREPLY < <(compgen -W \
            "$(sed -n -e 's/^ *\(-[A-Za-z], \)\{0,1\}\(--[a-z][a-z0-9-]*\).*/\2/p' <<<"$help"
            sed '/^$/q' <<<"$help" | grep -o -e '--[a-z][a-z0-9-]*')" -- "$cur" | awk '!seen[$0]++')
    elif [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$cur") # what a command is about
    fi
}

complete -o filenames -F _gist_options gistd gist-http gist-train gist-adapter gist-dbus
