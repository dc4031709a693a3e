#!/bin/sh
# tests/test_stranger.sh - what a stranger tries (scripts/stranger), with real programs and the default model. Would catch:
# a mistake that is not explained, a way to the first answer that breaks, keys or lines that are lost, something that was
# read and is read again after a restart, a full disk or a cut file that ends the daemon.
set -eu
case $BUILD in
*/release*) ;;
*)
    echo 'it runs the programs as they are installed: in the release flavour'
    exit 77
    ;;
esac
if [ -z "${GISTD_TEST_MODEL:-}" ]; then
    echo 'GISTD_TEST_MODEL is not set'
    exit 77
fi
. tests/support/daemon.sh

# Which tasks there are; each has a transcript, and each transcript a task.
sed -n '/^@task$/{n;s/^def \(.*\)(h):$/\1/p}' scripts/stranger | tr _ - >"$tmp/tasks"
check 'twenty tasks' [ "$(wc -l <"$tmp/tasks")" -ge 20 ]
# shellcheck disable=SC2012
ls docs/transcripts | sed -n 's/^[0-9]*-\(.*\)\.txt$/\1/p' >"$tmp/transcripts"
sort "$tmp/tasks" >"$tmp/sorted.1"
sort "$tmp/transcripts" >"$tmp/sorted.2"
check 'each has its transcript' cmp "$tmp/sorted.1" "$tmp/sorted.2"

# The picture in README is what the recording makes.
cp docs/recording.cast "$tmp/recording.cast"
code 'the picture of the recording' 0 scripts/record --svg "$tmp/recording.cast"
check 'is the one that is there' cmp "$tmp/recording.svg" docs/recording.svg
check 'and needs nothing from elsewhere' sh -c "! grep -E 'href|url\(|<script|@import' docs/recording.svg"

# Programs that do nothing don't pass.
mkdir "$tmp/hollow"
cp /bin/true "$tmp/hollow/gistctl"
cp /bin/true "$tmp/hollow/gistd"
code 'hollow programs' 1 scripts/stranger --build "$tmp/hollow" --only no-daemon wrong-flag
check 'each fails' grep -q '^2 tasks, 2 failed$' "$tmp/out"

code 'all tasks' 0 scripts/stranger --build "$BUILD"
cat "$tmp/out"
done_testing
