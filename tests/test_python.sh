#!/bin/sh
# tests/test_python.sh - the Python package as a wheel, its types, its examples, and the plug-in by the real llm. Would
# catch: a declaration that is not the library's, a wheel that lacks a file, a stream or a task that leaves its session
# at work, a document that processes read twice, an error that is no exception.
#   PYTHON=...  one that has tests/requirements-python.txt (scripts/test says so); else python3
set -eu
. tests/support/daemon.sh
python=${PYTHON:-python3}
here=$(pwd)
case $BUILD in
*/release) ;;
*)
    echo 'a Python program does not start with a sanitizer in one of its libraries'
    exit 77
    ;;
esac
"$python" -c 'import cffi, mypy, setuptools, wheel' 2>/dev/null || {
    echo "$python has not what tests/requirements-python.txt lists"
    exit 77
}
export PYTHONDONTWRITEBYTECODE=1

# In a copy: setuptools writes beside what it builds.
mkdir "$tmp/src"
cp -r python client "$tmp/src/"
for package in . llm-gistd; do
    code "the wheel of python/$package" 0 sh -c "cd '$tmp/src/python/$package' && '$python' -m pip -q wheel --no-deps --no-build-isolation -w '$tmp/dist' ."
done
code 'the wheels are installed' 0 "$python" -m pip -q install --no-deps --no-index --target "$tmp/site" "$tmp"/dist/*.whl
check 'one is for every Python' sh -c "ls '$tmp'/dist/gistd-*-py3-none-any.whl"
code 'types' 0 sh -c "cd '$tmp/src/python' && MYPYPATH='$tmp/site' '$python' -m mypy --strict --cache-dir '$tmp/mypy' gistd examples"
cp "$tmp/out" "$tmp/types"
cat "$tmp/types"

PYTHONPATH=$tmp/site
code 'without the library' 1 env PYTHONPATH="$PYTHONPATH" LIBGIST=/no/libgist.so.0 "$python" -c 'import gistd'
says 'install the package libgist0'
LIBGIST=$here/$BUILD/libgist.so.0
export PYTHONPATH LIBGIST

daemon_start tests/data/tiny_smollm2.gguf
cd "$tmp"
code 'the tests of the package' 0 "$python" -m unittest discover "$here/python/tests"
sed -n '/^Ran/p;/^OK/p' "$tmp/err"

seq 1 300 >"$tmp/book"
code 'three processes and a document' 0 "$python" "$here/python/examples/assistant.py" "$tmp/book" 'What is this?' 'And why?'
cp "$tmp/out" "$tmp/said"
tokens=$(sed -n 's/^indexer: \([0-9]*\) tokens;.*/\1/p' "$tmp/said")
computed=$(sed -n 's/.* \([0-9]*\) computed, .*/\1/p' "$tmp/said" | awk '{ n += $1 } END { print n }')
check 'the document was read once, but for the last page of each' [ "$computed" -le $((tokens + 4 * 16)) ]
check 'by an indexer and three askers' [ "$(grep -c ' computed, ' "$tmp/said")" -eq 4 ]
code 'nothing is left of it' 0 "$here/$gistctl" doc ls -j
check 'nothing is left of it' json 'j == []' <"$tmp/out"
for n in indexer asker assistant; do
    code "$n without arguments" $([ $n = assistant ] && echo 2 || echo 1) "$python" "$here/python/examples/$n.py"
done

# The plug-in, by the program.
if "$python" -c 'import llm' 2>/dev/null; then
    LLM_USER_PATH=$tmp/llm
    export LLM_USER_PATH
    llm() { "$python" -m llm "$@"; }
    code 'llm knows the model' 0 llm models
    check 'llm knows the model' grep -q '^Gistd: gistd' "$tmp/out"
    code 'llm asks' 0 llm -m gistd -o max_tokens 8 -s 'Be brief.' 'Count to ten.'
    check 'something is said' [ -s "$tmp/out" ]
    cp "$tmp/out" "$tmp/first"
    code 'the same without a stream' 0 llm -m gistd --no-stream -o max_tokens 8 -s 'Be brief.' 'Count to ten.'
    check 'the same without a stream' cmp "$tmp/first" "$tmp/out"
    code 'llm goes on' 0 llm -c -o max_tokens 4 'And then?'
    code 'the log' 0 llm logs -n 1 --json
    check 'it knew what had been said' json 'json.loads(j[0]["token_details"])["cached_tokens"] > 30 and j[0]["output_tokens"] == 4' <"$tmp/out"
    code 'a schema' 0 llm -m gistd --schema '{"type": "object", "properties": {"old": {"type": "boolean"}}, "required": ["old"], "additionalProperties": false}' 'A person.'
    check 'a schema' json 'isinstance(j["old"], bool)' <"$tmp/out"
    code 'asynchronously' 0 llm -m gistd --async -o max_tokens 8 -s 'Be brief.' 'Count to ten.'
    check 'the same asynchronously' cmp "$tmp/first" "$tmp/out"
    code 'an option that cannot be' 1 llm -m gistd -o memory nonsense 'Why?'
    says "there is no compressor 'nonsense'"
    GISTD_SOCKET=/no/gistd.sock
    code 'no daemon' 1 llm -m gistd 'Why?'
    says '/no/gistd.sock'
    GISTD_SOCKET=$tmp/gistd.sock
else
    echo "$python has no llm (tests/requirements-http.txt): the plug-in is not tested"
fi

code 'a daemon that dies' 0 env GISTD_TEST_PID="$daemon" "$python" "$here/python/tests/test_gistd.py" TheEnd
wait "$daemon" || true
daemon=
done_testing
